"""Commands about the namespace: ls, cat, cp, rm, mount, umount, search."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

from llmos.syscalls.errors import BadArgument, Busy, Exists
from llmos.syscalls.types import Entry, TransformRecipe
from llmos.userland.places import host_path

from .. import text
from ..cli import Cli
from .registry import run_job


def ls(cli: Cli, values: Namespace) -> int:
    path = cli.path(values.path or "/models")
    entry = cli.system.stat_path(path)
    entries = [entry] if entry.kind == "file" else cli.system.list(path)
    if cli.out.result(entries):
        return 0
    if values.long or values.path is None:
        rows = [_long(entry) for entry in entries]
        cli.out.table(("NAME", "KIND", ">SIZE", "VERSION", "CHANGED", "ABOUT"), rows, "it is empty")
        return 0
    for entry in entries:
        cli.out.line(_name(entry))
    return 0


def _name(entry: Entry) -> str:
    name = entry.path.rstrip("/").rpartition("/")[2]
    return name + "/" if entry.kind == "folder" else name


def _long(entry: Entry) -> tuple[object, ...]:
    f = entry.fields
    parameters = f"{text.count(f['parameters'])} parameters" if f.get("parameters") else ""
    about = ", ".join(str(part) for part in (f.get("architecture"), parameters, f.get("dtype")) if part)
    size = text.size(entry.bytes) if entry.kind != "folder" else ""
    return _name(entry), entry.kind, size, entry.version, text.clock(entry.mtime) if entry.mtime else "", about


def cat(cli: Cli, values: Namespace) -> int:
    data = cli.system.read(cli.path(values.path))
    if cli.out.as_json:
        cli.out.result({"path": values.path, "data": data.decode("utf-8", "replace")})
        return 0
    cli.out.bytes(data)
    return 0


def cp(cli: Cli, values: Namespace) -> int:
    """Files either way; models and folders out of the namespace; a model into it is an import by its file system."""
    source, target = host_path(values.source), host_path(values.target)
    if source is not None and target is not None:
        raise BadArgument("both paths are of this machine's own file system; its own cp copies them", name="target")
    if target is not None:
        entry = cli.system.stat_path(cli.path(values.source))
        whole = target / Path(entry.path).name.partition("@")[0] if target.is_dir() else target
        written = _copy_out(cli, entry, whole, values.force)
    elif source is not None and source.is_file():
        written = _copy_in(cli, source.read_bytes(), values)
    elif source is None and cli.system.stat_path(cli.path(values.source)).kind == "file":
        written = _copy_in(cli, cli.system.read(values.source), values)
    else:
        return _import(cli, values)
    if not cli.out.result({"source": values.source, "target": values.target, "bytes": written}):
        cli.out.line(f"{text.size(written)} copied to {values.target}")
    return 0


def _copy_in(cli: Cli, data: bytes, values: Namespace) -> int:
    """A file into the namespace; the bytes written."""
    try:
        written: int = cli.system.write(cli.path(values.target), data, mode="w" if values.force else "x")
    except Exists:
        raise Exists(f"{values.target} exists; say --force to replace it") from None
    return written


def _copy_out(cli: Cli, entry: Entry, target: Path, force: bool) -> int:
    """A file, or a model or folder with all it holds; the bytes written."""
    if entry.kind != "file":
        target.mkdir(parents=True, exist_ok=True)
        found = cli.system.list(entry.path)
        return sum(_copy_out(cli, inner, target / Path(inner.path).name, force) for inner in found)
    if target.exists() and not force:
        raise Exists(f"{target} exists; say --force to replace it")
    return target.write_bytes(cli.system.read(entry.path))


def _import(cli: Cli, values: Namespace) -> int:
    recipe = TransformRecipe(kind="import", options={"replace": True} if values.force else {})
    source, target = cli.path(values.source), cli.path(values.target)
    return run_job(cli, [source], target, recipe, f"copying {values.source}")


def rm(cli: Cli, values: Namespace) -> int:
    path = cli.path(values.path)
    try:
        done = cli.system.remove(path)
    except Busy:
        if not values.force:
            raise
        model = path.partition("@")[0]
        for info in cli.system.models():
            if info.fields.get("path", "").partition("@")[0] == model:
                cli.system.model(info.id).unload(force=True)
        done = cli.system.remove(path)
    if not cli.out.result(done):
        cli.out.line(f"{values.path} is removed")
    return 0


def mount(cli: Cli, values: Namespace) -> int:
    if values.source is None:
        found = cli.system.mounts()
        if not cli.out.result(found):
            rows = [(f["path"], f["filesystem"], f["mode"], f["source"]) for f in (i.fields for i in found)]
            cli.out.table(("PATH", "FILE SYSTEM", "MODE", "SOURCE"), rows)
        return 0
    folder = host_path(values.source)
    source = str(folder if folder is not None else Path(values.source).expanduser())
    made = cli.system.mount(source, values.path, filesystem=values.filesystem or "models", writable=values.write)
    if not cli.out.result(made.info):
        cli.out.line(f"{made.info.source} is at {made.info.path} ({made.info.mode})")
    if not cli.in_shell:
        cli.out.note("it ends with this command; in the shell, or in the policy of config.toml, a mount lasts")
    return 0


def umount(cli: Cli, values: Namespace) -> int:
    cli.system.unmount(values.path)
    if not cli.out.result({}):
        cli.out.line(f"{values.path} is not mounted any more")
    return 0


def search(cli: Cli, values: Namespace) -> int:
    words, limit = values.words or "", values.limit or 8
    hits = cli.system.search(cli.path(values.path), words, filters=_filters(values), limit=limit)
    if not cli.out.result(hits):
        rows = [(hit.path, f"{hit.score:.2f}", hit.reason) for hit in hits]
        cli.out.table(("PATH", ">SCORE", "WHY"), rows, "nothing was found")
    return 0


def _filters(values: Namespace) -> dict[str, Any]:
    """What the options ask for, as filters of the call; those that are not given are left out."""
    names = ("task", "architecture", "licence", "language", "fits", "sort")
    found = {name: value for name in names if (value := getattr(values, name)) is not None}
    if values.max_size is not None:
        found["max_bytes"] = text.bytes_of(values.max_size)
    return found
