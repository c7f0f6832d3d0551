"""Commands about the namespace: ls, cat, cp, rm, mount, umount, search."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from llmos.syscalls.errors import Exists, NotSupported
from llmos.syscalls.types import Entry
from llmos.userland.places import host_path

from .. import text
from ..cli import Cli


def ls(cli: Cli, values: Namespace) -> int:
    entries = cli.system.list(values.path or "/models")
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
    data = cli.system.read(values.path)
    if cli.out.as_json:
        cli.out.result({"path": values.path, "data": data.decode("utf-8", "replace")})
        return 0
    cli.out.bytes(data)
    return 0


def cp(cli: Cli, values: Namespace) -> int:
    """A file from or to this machine or the namespace; models are imported and exported by later commands."""
    source, target = host_path(values.source), host_path(values.target)
    content = source.read_bytes() if source is not None else _read_file(cli, values.source)
    if target is not None:
        written = _write_host(target, content, values.force)
    else:
        written = cli.system.write(values.target, content, mode="w" if values.force else "x")
    if not cli.out.result({"source": values.source, "target": values.target, "bytes": written}):
        cli.out.line(f"{text.size(written)} copied to {values.target}")
    return 0


def _read_file(cli: Cli, path: str) -> bytes:
    if cli.system.stat_path(path).kind != "file":
        raise NotSupported(f"cp copies single files; {path} is none", why="models are not copied by this command yet")
    return cli.system.read(path)


def _write_host(target: Path, content: bytes, force: bool) -> int:
    if target.exists() and not force:
        raise Exists(f"{target} exists; say --force to replace it")
    return target.write_bytes(content)


def rm(cli: Cli, values: Namespace) -> int:
    done = cli.system.remove(values.path)
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
        cli.out.line(f"{made.info.source} is at {made.info.path} ({made.info.mode}) while this session lasts")
    return 0


def umount(cli: Cli, values: Namespace) -> int:
    cli.system.unmount(values.path)
    if not cli.out.result({}):
        cli.out.line(f"{values.path} is not mounted any more")
    return 0


def search(cli: Cli, values: Namespace) -> int:
    hits = cli.system.search(values.path, values.words, limit=values.limit or 8)
    if not cli.out.result(hits):
        rows = [(hit.path, f"{hit.score:.2f}", hit.reason) for hit in hits]
        cli.out.table(("PATH", ">SCORE", "WHY"), rows, "nothing was found")
    return 0
