"""keys: who may use the HTTP gateway. Works on the file in the kernel's home folder, so no kernel has to run."""

from __future__ import annotations

import getpass
import math
import os
import time
from argparse import Namespace
from contextlib import closing
from typing import TYPE_CHECKING, Any

import msgspec

from llmos.syscalls.errors import BadArgument, LlmosError

from .. import text
from ..cli import Cli

if TYPE_CHECKING:
    from llmos.userland.gateway.core.keys import KeyInfo, KeyStore

ADDRESS = "http://127.0.0.1:7411"


def keys(cli: Cli, values: Namespace) -> int:
    from llmos.userland.gateway.core.keys import KeyStore, database

    if values.action != "list" and not values.name:
        raise BadArgument(f"keys {values.action}: which one? say keys {values.action} NAME", name="name", want="a name")
    with closing(KeyStore(database(cli.home()))) as store:
        return {"create": _create, "list": _list, "revoke": _revoke}[values.action](cli, store, values)


def _create(cli: Cli, store: KeyStore, values: Namespace) -> int:
    from llmos.userland.gateway.core.keys import DEFAULT_SCOPES

    lasts = values.expires
    key, info = store.create(
        values.name,
        user=values.user or _user(),
        scopes=values.scope or DEFAULT_SCOPES,
        models=values.model or (),
        expires=None if lasts is None or math.isinf(lasts) else time.time() + lasts,
        tokens_per_minute=values.tokens_per_minute or 0,
        requests_per_minute=values.requests_per_minute or 0,
        concurrent=values.concurrent or 0,
    )
    if cli.out.result({"key": key, **_plain(info)}):
        return 0
    base = _address()
    cli.out.line(key)
    cli.out.note(f"This is the only time that the key {info.name!r} ({info.id}) is shown. It may: {_scopes(info)}.")
    cli.out.note(f"For programs of OpenAI's API: OPENAI_BASE_URL={base}/v1 OPENAI_API_KEY={key}")
    cli.out.note(f"In a browser: {base}/dashboard#key={key}")
    return 0


def _list(cli: Cli, store: KeyStore, values: Namespace) -> int:
    found = store.list()
    if cli.out.result([_plain(info) for info in found]):
        return 0
    now = time.time()
    rows = [
        (
            info.name, info.id, info.user, info.state(now), _scopes(info), " ".join(info.models) or "all",
            _limits(info), "never" if info.expires is None else text.clock(info.expires), text.ago(info.used or 0),
        )
        for info in found
    ]  # fmt: skip
    columns = ("NAME", "ID", "USER", "STATE", "SCOPES", "MODELS", "LIMITS", "EXPIRES", "USED")
    cli.out.table(columns, rows, "there are no keys; try: keys create NAME")
    return 0


def _revoke(cli: Cli, store: KeyStore, values: Namespace) -> int:
    info = store.revoke(values.name)
    if not cli.out.result(_plain(info)):
        cli.out.line(f"the key {info.name!r} ({info.id}) is revoked: its next request is refused")
    return 0


def _plain(info: KeyInfo) -> dict[str, Any]:
    plain: dict[str, Any] = msgspec.to_builtins(info)
    return {**plain, "scopes": sorted(info.scopes), "state": info.state(time.time())}


def _scopes(info: KeyInfo) -> str:
    return " ".join(sorted(info.scopes))


def _limits(info: KeyInfo) -> str:
    limits = info.limits
    named = (
        (limits.tokens_per_minute, "tokens/min"), (limits.requests_per_minute, "requests/min"),
        (limits.concurrent, "at a time"),
    )  # fmt: skip
    return ", ".join(f"{number} {what}" for number, what in named if number) or "none"


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def _address() -> str:
    """Where the running gateway listens; where it would by default when none runs."""
    from llmos.userland.embedding import connect
    from llmos.userland.link import NoKernel

    try:
        with connect(program="llmos") as system:
            found: str = system.stat().fields.get("gateway", "")
    except (NoKernel, LlmosError):
        return ADDRESS
    return found if found.startswith("http") else ADDRESS
