"""One job that makes a model of others: a folder is staged, a transformation fills it, and it becomes a version.

Nothing is seen before the last step, which is one rename of the file system.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from llmos.syscalls.errors import BadArgument, Conflict, Exists, NotFound

from ..contract import FileSystem, ModelSource, ProgressSink
from ..filesystems.models.store import LATEST, NAME
from ..filesystems.paths import file_errors
from . import kinds
from .kinds import Kind

CARRIED = ("licence", "languages", "tags")
"""Fields of the first model's manifest that hold for the result too."""


def make(
    system: FileSystem,
    path: str,
    sources: Sequence[ModelSource],
    names: Sequence[str],
    recipe: Mapping[str, Any],
    progress: ProgressSink,
) -> dict[str, Any]:
    """Store what a recipe makes of located models; `names` are the paths by which a program knows them.

    Raises:
        Exists: something is at the path, and the option `replace` is not set.
        NotSupported, BadArgument, BadModel, NoSpace, ReadOnly, and what the transformation raises.
    """
    kind, run = kinds.find(str(recipe.get("kind")))
    if len(sources) < kind.least:
        text = f"{recipe.get('kind')} takes at least {kind.least} sources, {len(sources)} are given"
        raise BadArgument(text, name="sources", got=str(len(sources)), want=str(kind.least))
    options = recipe.get("options") or {}
    replace = options.get("replace") is True or "@" in path
    if not replace:
        _check_free(system, path)
    if alias := options.get("alias"):
        _check_alias(system, path, alias)
    token, folder = system.stage(path)
    try:
        with file_errors(path, writing=True):
            fields = dict(run(sources, recipe, folder, progress))
            sizes = [file.stat().st_size for file in folder.rglob("*") if file.is_file()]
        carried = (*CARRIED, *kind.same)
        known = {name: sources[0].manifest[name] for name in carried if sources[0].manifest.get(name)}
        manifest = {**known, **fields, "parents": _parents(kind, sources, names, recipe)}
        if licence := options.get("licence"):
            manifest.setdefault("licence", licence)
        progress(0, 0, "bytes", "store")
        version = _commit(system, token, path, manifest, None if replace else "")
    finally:
        system.release(token)
    if alias:
        system.control("alias", {"name": path.partition("@")[0].lstrip("/"), "alias": alias, "version": version})
    return {"version": version, "files": len(sizes), "bytes": sum(sizes), "metrics": fields.get("metrics", {})}


def _check_free(system: FileSystem, path: str) -> None:
    """What would be refused at the end is refused now, before hours of work. Raises Exists."""
    try:
        system.stat(path)
    except NotFound:
        return
    raise _exists(path)


def _check_alias(system: FileSystem, path: str, alias: Any) -> None:
    """The same for the alias of the new version. Raises BadArgument, Exists."""
    name, _, version = path.partition("@")
    if not isinstance(alias, str) or not NAME.fullmatch(alias) or alias == LATEST or (alias.isdigit() and not version):
        want = f"up to 64 letters, digits, . _ or -, other than {LATEST} and the numbers that versions get"
        raise BadArgument(f"{alias!r} cannot be an alias; use {want}", name="alias", got=str(alias)[:80], want=want)
    try:
        taken = {version, *system.stat(name).fields.get("versions", ())}
    except NotFound:
        taken = {version}
    if alias in taken:
        raise Exists(f"{name} has a version {alias}; an alias needs another name")


def _commit(system: FileSystem, token: str, path: str, manifest: Mapping[str, Any], expected: str | None) -> str:
    try:
        return system.commit(token, manifest, expected)
    except Conflict:
        raise _exists(path) from None


def _exists(path: str) -> Exists:
    return Exists(f"{path} exists already; --force stores a new version of it, or name another one")


def _parents(
    kind: Kind, sources: Sequence[ModelSource], names: Sequence[str], recipe: Mapping[str, Any]
) -> list[dict[str, str]]:
    """What the result was made from, and how to make it again."""
    said = {name: _plain(value) for name, value in recipe.items() if value and name not in ("kind", "options")}
    said |= {name: value for name, value in (recipe.get("options") or {}).items() if name not in kinds.COMMON}
    how = {"how": kind.how, "recipe": json.dumps(said, sort_keys=True)}
    paired = list(zip(names, sources, strict=True))[: kind.models]
    return [{"path": name.partition("@")[0], "version": source.version, **how} for name, source in paired]


def _plain(value: Any) -> Any:
    """Without what is not set; a 0 may mean something."""
    if not isinstance(value, Mapping):
        return value
    return {name: each for name, each in value.items() if each not in ("", None, []) and each is not False}
