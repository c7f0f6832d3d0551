"""The keys of the gateway: who may speak to it, with which scopes, until when and how much. One SQLite file.

A key is the text `llmos_<id>_<secret>`; the file keeps its SHA-256 alone. A slow password hash would add nothing: the
secret is 256 random bits, which nobody finds by trying. The command line and every gateway process open the same file
(WAL), so what one of them does the others see at their next look: nothing is remembered between two requests.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import secrets
import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from llmos.syscalls.errors import BadArgument, BadState, Exists, NotFound, Unavailable

from .caller import KeyLimits
from .scopes import SCOPES

DEFAULT_SCOPES = ("infer", "read", "files")
VERSION = 1
_ALL = ", ".join(sorted(SCOPES))
_BUSY_S = 2.0
_TOUCH_S = 60.0
"""How exact the time of the last use is."""
_KEY = re.compile(r"llmos_(?P<id>[a-z2-7]{8})_[A-Za-z0-9_-]{43}")
_NAME = re.compile(r"[^\x00-\x1f\x7f]{1,100}")
_LETTERS = "abcdefghijklmnopqrstuvwxyz234567"

_SCHEMA = """
CREATE TABLE IF NOT EXISTS keys (
  id TEXT PRIMARY KEY, name TEXT NOT NULL, user TEXT NOT NULL, hash BLOB NOT NULL, scopes TEXT NOT NULL,
  models TEXT NOT NULL, created REAL NOT NULL, expires REAL, revoked REAL, used REAL,
  tokens_per_minute INTEGER NOT NULL DEFAULT 0, requests_per_minute INTEGER NOT NULL DEFAULT 0,
  concurrent INTEGER NOT NULL DEFAULT 0, priority_max INTEGER NOT NULL DEFAULT 100);
CREATE UNIQUE INDEX IF NOT EXISTS keys_by_name ON keys (name) WHERE revoked IS NULL;
CREATE TABLE IF NOT EXISTS files (
  id TEXT PRIMARY KEY, key TEXT NOT NULL, filename TEXT NOT NULL, purpose TEXT NOT NULL, bytes INTEGER NOT NULL,
  path TEXT NOT NULL, created REAL NOT NULL, sha256 TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS jobs (
  id TEXT PRIMARY KEY, key TEXT NOT NULL, task TEXT NOT NULL, body TEXT NOT NULL, created REAL NOT NULL);
CREATE TABLE IF NOT EXISTS responses (
  id TEXT PRIMARY KEY, key TEXT NOT NULL, body TEXT NOT NULL, messages TEXT NOT NULL, created REAL NOT NULL);
"""
_COLUMNS = (
    "id, name, user, scopes, models, created, expires, revoked, used, tokens_per_minute, requests_per_minute, "
    "concurrent, priority_max"
)


@dataclass(frozen=True)
class KeyInfo:
    """A key without its secret. Times are seconds since the epoch."""

    id: str
    name: str
    user: str
    scopes: frozenset[str]
    models: tuple[str, ...]
    """Patterns of model names it may use (`fnmatch`); none: all."""
    limits: KeyLimits
    created: float
    expires: float | None
    revoked: float | None
    used: float | None

    def state(self, now: float) -> str:
        """valid, expired or revoked."""
        if self.revoked is not None:
            return "revoked"
        return "expired" if self.expires is not None and self.expires <= now else "valid"


def database(home: Path) -> Path:
    """Where the gateway of a home folder keeps keys, files, jobs and stored responses."""
    return home / "gateway" / "gateway.db"


def open_database(path: Path) -> sqlite3.Connection:
    """Open the gateway's file, which only its user can read; it is made when it is missing.

    Raises:
        BadState: it is no such file, or one of a newer version.
        Unavailable: another process holds it locked.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.parent.chmod(0o700)
    # Only a file that is not there yet is made by hand: to close a descriptor of one that this process has open would
    # give up the locks that SQLite holds on it (fcntl), and another process would take its log away.
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    path.chmod(0o600)
    with _typed(path):
        connection = sqlite3.connect(
            path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False, cached_statements=64
        )
        try:
            _prepare(connection, path)
        except BaseException:
            connection.close()
            raise
    return connection


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    (found,) = connection.execute("PRAGMA user_version").fetchone()
    if found > VERSION:
        raise BadState(f"{path} was written by a newer version ({found}, this one knows {VERSION}): update llmos")
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")
    if found < VERSION:
        connection.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version={VERSION}; COMMIT;")


@contextmanager
def _typed(path: Path) -> Iterator[None]:
    """What SQLite says, as errors of ours."""
    try:
        yield
    except sqlite3.IntegrityError:
        raise
    except sqlite3.OperationalError as error:
        if error.sqlite_errorname.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            raise Unavailable(f"{path} is locked by another process; try again", retry_after_ms=1000) from None
        raise BadState(f"{path}: {error}") from None
    except sqlite3.DatabaseError as error:
        raise BadState(f"{path} is damaged or no file of the gateway: {error}; move it away to begin anew") from None


class KeyStore:
    """The keys in one file. For one thread at a time.

    Raises:
        BadState: the file is damaged; Unavailable: it is locked. Any method may raise these.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._connection = open_database(path)
        self._touched: dict[str, float] = {}

    def create(
        self,
        name: str,
        *,
        user: str,
        scopes: Iterable[str] = DEFAULT_SCOPES,
        models: Iterable[str] = (),
        expires: float | None = None,
        tokens_per_minute: int = 0,
        requests_per_minute: int = 0,
        concurrent: int = 0,
        priority_max: int = 100,
        now: float | None = None,
    ) -> tuple[str, KeyInfo]:
        """Make a key; its text is told this once.

        Args:
            name: what people call it; unique among the keys that are not revoked.
            user: whom it belongs to.
            scopes: what it may do.
            models: patterns of model names (`fnmatch`) it may use; none: all.
            expires: when it ends, seconds since the epoch; None: never.
            tokens_per_minute, requests_per_minute, concurrent: its limits; 0 for none.
            priority_max: the highest priority of its requests.
            now: seconds since the epoch.

        Raises:
            BadArgument: a name, scope, time or limit that cannot be.
            Exists: a valid key has this name.
        """
        now = time.time() if now is None else now
        limits = KeyLimits(tokens_per_minute, requests_per_minute, concurrent, priority_max)
        info = KeyInfo(
            "".join(secrets.choice(_LETTERS) for _ in range(8)), name, user, frozenset(scopes), tuple(models), limits,
            now, expires, None, None,
        )  # fmt: skip
        _check(info)
        text = f"llmos_{info.id}_{secrets.token_urlsafe(32)}"
        values = (
            info.id, name, user, _hash(text), " ".join(sorted(info.scopes)), json.dumps(info.models), now, expires,
            tokens_per_minute, requests_per_minute, concurrent, priority_max,
        )  # fmt: skip
        try:
            with _typed(self.path):
                self._connection.execute(  # the name of a key that has ended is free
                    "UPDATE keys SET revoked = expires WHERE name = ? AND revoked IS NULL AND expires <= ?", (name, now)
                )
                self._connection.execute(
                    "INSERT INTO keys (id, name, user, hash, scopes, models, created, expires, tokens_per_minute,"
                    " requests_per_minute, concurrent, priority_max) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    values,
                )
        except sqlite3.IntegrityError:
            raise Exists(f"there is a key called {name!r}; revoke it first, or choose another name") from None
        return text, info

    def list(self) -> list[KeyInfo]:
        """All keys, the revoked too, oldest first."""
        with _typed(self.path):
            return [_info(row) for row in self._connection.execute(f"SELECT {_COLUMNS} FROM keys ORDER BY created, id")]

    def revoke(self, id_or_name: str, now: float | None = None) -> KeyInfo:
        """End a key: no request that comes after this is let in with it. Revoking twice changes nothing.

        Raises:
            NotFound: no key has this id, and no key that is not revoked has this name.
        """
        at = time.time() if now is None else now
        with _typed(self.path):
            named = self._connection.execute(
                "SELECT id FROM keys WHERE id = ?1 OR (name = ?1 AND revoked IS NULL) ORDER BY id = ?1 DESC",
                (id_or_name,),
            ).fetchone()
            if named is None:
                raise NotFound(f"no key is called {id_or_name[:80]!r}; `llmos keys list` shows them")
            self._connection.execute("UPDATE keys SET revoked = ? WHERE id = ? AND revoked IS NULL", (at, named[0]))
            return _info(self._connection.execute(f"SELECT {_COLUMNS} FROM keys WHERE id = ?", named).fetchone())

    def find(self, text: str, now: float | None = None) -> KeyInfo | None:
        """The key of this text; None when there is none or it is expired or revoked."""
        match = _KEY.fullmatch(text)
        if match is None:
            return None
        with _typed(self.path):
            row = self._connection.execute(f"SELECT {_COLUMNS}, hash FROM keys WHERE id = ?", (match["id"],)).fetchone()
        if row is None or not hmac.compare_digest(row[-1], _hash(text)):
            return None
        info = _info(row[:-1])
        return info if info.state(time.time() if now is None else now) == "valid" else None

    def valid(self, id: str, now: float | None = None) -> bool:
        """Whether the key of that id still lets in."""
        with _typed(self.path):
            row = self._connection.execute(f"SELECT {_COLUMNS} FROM keys WHERE id = ?", (id,)).fetchone()
        return row is not None and _info(row).state(time.time() if now is None else now) == "valid"

    def touch(self, id: str, now: float | None = None) -> None:
        """Remember that a key was used, exact to a minute."""
        at = time.time() if now is None else now
        if at - self._touched.get(id, 0.0) < _TOUCH_S:
            return
        self._touched[id] = at
        with _typed(self.path):
            self._connection.execute("UPDATE keys SET used = ? WHERE id = ?", (at, id))

    def close(self) -> None:
        self._connection.close()


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def _info(row: tuple[object, ...]) -> KeyInfo:
    id, name, user, scopes, models, created, expires, revoked, used, *limits = row
    return KeyInfo(
        str(id), str(name), str(user), frozenset(str(scopes).split()), tuple(json.loads(str(models))),
        KeyLimits(*(int(str(limit)) for limit in limits)), float(str(created)), _time(expires), _time(revoked),
        _time(used),
    )  # fmt: skip


def _time(value: object) -> float | None:
    return None if value is None else float(str(value))


def _check(info: KeyInfo) -> None:
    for what, value in (("name", info.name), ("user", info.user)):
        if not _NAME.fullmatch(value):
            raise BadArgument(
                f"{what} {value[:80]!r} cannot be: 1 to 100 printable characters", name=what, got=value[:80]
            )
    if not info.scopes:
        raise BadArgument("a key needs at least one scope", name="scopes", got="none", want=_ALL)
    for scope in sorted(info.scopes):
        if scope not in SCOPES:
            raise BadArgument(f"there is no scope {scope!r}; there are {_ALL}", name="scopes", got=scope, want=_ALL)
    for pattern in info.models:
        if not _NAME.fullmatch(pattern):
            raise BadArgument(f"{pattern[:80]!r} is no pattern of model names", name="models", got=pattern[:80])
    if info.expires is not None and not info.created < info.expires < 1e11:
        raise BadArgument("a key cannot expire before it is made", name="expires", got=str(info.expires))
    for limit in ("tokens_per_minute", "requests_per_minute", "concurrent"):
        value = getattr(info.limits, limit)
        if not 0 <= value < 1 << 53:
            raise BadArgument(f"{limit} is {value}; 0 is no limit", name=limit, got=str(value), want="0 or more")
    if not -100 <= info.limits.priority_max <= 100:
        raise BadArgument(
            f"priority_max is {info.limits.priority_max}", name="priority_max", got=str(info.limits.priority_max),
            want="-100 to 100",
        )  # fmt: skip
