"""Searching the index: words, filters, order."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar
from unicodedata import combining, normalize

from llmos.drivers.contract import Found
from llmos.syscalls.describe import suggest
from llmos.syscalls.errors import BadArgument

from .index import WORDS, Index
from .ranking import SORTS, Candidate, ranked, reason, size_text

T = TypeVar("T")

LISTS: Mapping[str, str] = {
    "task": "EXISTS (SELECT 1 FROM task t WHERE t.version_id = v.id AND t.value IN ({}))",
    "language": "EXISTS (SELECT 1 FROM language t WHERE t.version_id = v.id AND t.value IN ({}))",
    "tag": "EXISTS (SELECT 1 FROM tag t WHERE t.version_id = v.id AND t.value IN ({}))",
    "licence": "v.licence COLLATE NOCASE IN ({})",
    "dtype": "v.dtype COLLATE NOCASE IN ({})",
    "kind": "v.kind IN ({})",
}
"""Filters that take a text or a list of them, any of which may be the one."""
PARTS: Mapping[str, str] = {"architecture": "instr(lower(v.architecture), {})", "origin": "instr(lower(v.origin), {})"}
"""The same, where a part of the value is enough."""
NUMBERS: Mapping[str, str] = {
    "max_bytes": "v.bytes <= ?", "min_bytes": "v.bytes >= ?", "max_parameters": "v.parameters <= ?",
    "min_parameters": "v.parameters >= ?", "min_context": "v.context >= ?",
}  # fmt: skip
PARENT = "EXISTS (SELECT 1 FROM parent p WHERE p.version_id = v.id AND trim(p.path, '/') IN (?, 'models/' || ?))"
FILTERS = (*LISTS, *PARTS, *NUMBERS, "parent", "all_versions", "sort")
CANDIDATES = 100
"""How many of the best matches of words are ranked, at least."""
MAX_WORDS = 16
_WORD = re.compile(r"[^\W_]+")
_MEASURED = "(SELECT max(m.value) FROM measure m WHERE m.path = v.path AND m.version = v.version AND m.name = '{}')"
_ORDER: Mapping[str, str] = {
    "rank": "v.created DESC, v.path",
    "name": "v.path, v.id",
    "size": "v.bytes, v.path",
    "new": "v.created DESC, v.path",
    "speed": f"{_MEASURED.format('tokens_per_s')} DESC, v.path",
    "quality": f"{_MEASURED.format('quality')} DESC, v.path",
}


class Wanted:
    """Checked filters as conditions of SQL. Raises BadArgument."""

    def __init__(self, path: str, version: str, filters: Mapping[str, Any]) -> None:
        self.conditions: list[str] = []
        self.values: list[Any] = []
        self.asked: list[str] = []
        """What the conditions are, for people."""
        self.sort = "rank"
        if path != "/":
            self._add("(v.path = ? OR (v.path > ? AND v.path < ?))", path, path + "/", path + "0")
        if version:
            self._add("v.version = ?", version)
        elif filters.get("all_versions") is not True:
            self.conditions.append("v.current = 1")
        for name, value in filters.items():
            self._filter(name, value)

    @property
    def where(self) -> str:
        return " AND ".join(self.conditions) or "1"

    def _add(self, condition: str, *values: Any) -> None:
        self.conditions.append(condition)
        self.values += values

    def _filter(self, name: str, value: Any) -> None:
        if name in LISTS:
            texts = _texts(name, value)
            self._add(LISTS[name].format(", ".join("?" * len(texts))), *texts)
            self.asked.append(f"{name} {' or '.join(texts)}")
        elif name in PARTS:
            texts = _texts(name, value)
            self._add("(" + " OR ".join(PARTS[name].format("?") for _ in texts) + ")", *map(str.lower, texts))
            self.asked.append(f"{name} {' or '.join(texts)}")
        elif name in NUMBERS:
            if type(value) is not int or value < 0:
                raise _bad(name, value, "a whole number from 0")
            self._add(NUMBERS[name], min(value, (1 << 63) - 1))
            self.asked.append(_bound(name, value))
        elif name == "parent":
            [text] = _texts(name, value)[:1]
            self._add(PARENT, *[text.strip("/").removeprefix("models/")] * 2)
            self.asked.append(f"made from {text}")
        elif name == "all_versions":
            if not isinstance(value, bool):
                raise _bad(name, value, "true or false")
        elif name == "sort":
            if value not in SORTS:
                raise _bad(name, value, ", ".join(SORTS))
            self.sort = value
        else:
            text = f"models have no filter {name!r}; {suggest(name, FILTERS)}"
            raise BadArgument(text, name=name, got=str(value)[:80], want=", ".join(FILTERS))


def search(index: Index, query: str, wanted: Wanted, limit: int, behind: int = 0) -> list[Found]:
    """Best hits first. `behind`: how many folders the index does not know yet; then the reasons say so."""
    words = [*dict.fromkeys(_words(query))][:MAX_WORDS]
    if query.strip() and not words:
        return []
    asked = [*wanted.asked, *([f"{behind} folders are still to be indexed"] if behind else [])]
    plain = " ".join(query.split())

    def work(db: sqlite3.Connection) -> list[Found]:
        hits = ranked(_candidates(db, index.fts5, words, wanted, limit), plain, wanted.sort)[:limit]
        return [
            _hit(db, found, score, reason(found, plain, wanted.sort, asked, _places(db, found.id, words)))
            for score, found in hits
        ]

    return index.use(lambda db: _at_once(db, work))


def _at_once(db: sqlite3.Connection, work: Callable[[sqlite3.Connection], T]) -> T:
    """Several questions about one state: what others write meanwhile is seen by none of them."""
    db.execute("BEGIN")
    try:
        return work(db)
    finally:
        db.execute("ROLLBACK")


def _hit(db: sqlite3.Connection, candidate: Candidate, score: float, why: str) -> Found:
    fields, problem = db.execute("SELECT fields, problem FROM version WHERE id = ?", (candidate.id,)).fetchone()
    path = candidate.path if candidate.current else f"{candidate.path}@{candidate.version}"
    known: dict[str, Any] = {"version": candidate.version, "bytes": candidate.bytes, "measured": candidate.measured}
    if problem:
        known, why = {**known, "problem": problem}, f"{why}; it cannot be used"
    return Found(path, score, fields={**json.loads(fields), **known}, reason=why)


def _candidates(
    db: sqlite3.Connection, fts5: bool, words: Sequence[str], wanted: Wanted, limit: int
) -> list[Candidate]:
    if not words:
        found = _plain(db, wanted, limit)
    elif wanted.sort != "rank":
        found = _matching(db, fts5, words, wanted, limit, by_match=False)
    else:
        found = _matching(db, fts5, words, wanted, max(CANDIDATES, 2 * limit), by_match=True)
        found = {**_named(db, words, wanted), **found}
    marks = ", ".join("?" * len(found))
    measured: dict[int, dict[str, dict[str, float]]] = {}
    for id, device, name, value in db.execute(
        "SELECT v.id, m.device, m.name, m.value FROM version v JOIN measure m ON m.path = v.path "
        f"AND m.version = v.version WHERE v.id IN ({marks})", [*found]
    ):  # fmt: skip
        measured.setdefault(id, {}).setdefault(device, {})[name] = value
    rows = db.execute(
        f"SELECT id, path, version, current, bytes, created FROM version WHERE id IN ({marks})", [*found]
    ).fetchall()
    made = {row["id"]: _candidate(row, found[row["id"]], measured.get(row["id"], {})) for row in rows}
    return [made[id] for id in found]


def _candidate(row: sqlite3.Row, match: float, measured: Mapping[str, Mapping[str, float]]) -> Candidate:
    return Candidate(
        id=row["id"], path=row["path"], version=row["version"], current=bool(row["current"]), bytes=row["bytes"],
        created=row["created"], match=match, measured=measured,
    )  # fmt: skip


Matches = dict[int, float]
"""How well words fit, by the number of the version, in the order they were found."""


def _plain(db: sqlite3.Connection, wanted: Wanted, limit: int) -> Matches:
    sql = f"SELECT v.id FROM version v WHERE {wanted.where} ORDER BY {_ORDER[wanted.sort]} LIMIT ?"
    return {id: 0.0 for [id] in db.execute(sql, (*wanted.values, limit))}


def _matching(
    db: sqlite3.Connection, fts5: bool, words: Sequence[str], wanted: Wanted, limit: int, by_match: bool
) -> Matches:
    """Versions with all the words (the last letters of each may be missing); with any of them, if none has all."""
    found: Matches = {}
    for operator in ("AND", "OR") if len(words) > 1 else ("AND",):
        if fts5:
            match, values, score = _fts(words, operator)
        else:
            match, values, score = _like(words, operator)
        order = "match DESC" if by_match else _ORDER[wanted.sort]
        sql = (
            f"SELECT v.id, {score} AS match FROM words JOIN version v ON v.id = words.rowid "
            f"WHERE {match} AND {wanted.where} ORDER BY {order} LIMIT ?"
        )
        found = dict(db.execute(sql, (*values, *wanted.values, limit)).fetchall())
        if found:
            break
    return found


def _fts(words: Sequence[str], operator: str) -> tuple[str, list[str], str]:
    return "words MATCH ?", [f" {operator} ".join(f'"{word}"*' for word in words)], "-words.rank"


def _like(words: Sequence[str], operator: str) -> tuple[str, list[str], str]:
    text = " || ' ' || ".join(f"lower(words.{column})" for column in WORDS)
    return "(" + f" {operator} ".join(f"instr({text}, ?)" for _ in words) + ")", [*words], "1.0"


def _named(db: sqlite3.Connection, words: Sequence[str], wanted: Wanted) -> Matches:
    """Models whose name begins with the words: they rank above what a common word alone may find first."""
    begin = "-".join(words)
    sql = f"SELECT v.id FROM version v WHERE v.short >= ? AND v.short < ? AND {wanted.where} ORDER BY v.short LIMIT 20"
    return {id: 0.0 for [id] in db.execute(sql, (begin, begin + "\U0010ffff", *wanted.values))}


def _places(db: sqlite3.Connection, id: int, words: Sequence[str]) -> dict[str, str]:
    """Where each word was found first."""
    if not words:
        return {}
    texts = db.execute(f"SELECT {', '.join(WORDS)} FROM words WHERE rowid = ?", (id,)).fetchone()
    tokens = {name: _words(text) for name, text in zip(WORDS, texts, strict=True)}
    found: dict[str, str] = {}
    for word in words:
        column = next((name for name, has in tokens.items() if any(token.startswith(word) for token in has)), "")
        if column:
            found[word] = "name" if column == "path" else column
    return found


def _words(text: str) -> list[str]:
    """The words of a text as the word index sees them: small letters without marks."""
    if not text.isascii():
        text = "".join(letter for letter in normalize("NFKD", text) if not combining(letter))
    return _WORD.findall(text.casefold())


def _texts(name: str, value: Any) -> list[str]:
    texts = value if isinstance(value, list) else [value]
    if not texts or not all(isinstance(text, str) for text in texts):
        raise _bad(name, value, "a text or a list of texts")
    return texts


def _bound(name: str, value: int) -> str:
    which, _, what = name.partition("_")
    figure = size_text(value) if what == "bytes" else f"{value} {'tokens of context' if what == 'context' else what}"
    return f"{'at most' if which == 'max' else 'at least'} {figure}"


def _bad(name: str, value: Any, want: str) -> BadArgument:
    return BadArgument(f"the filter {name} is {value!r}; it must be {want}", name=name, got=str(value)[:80], want=want)
