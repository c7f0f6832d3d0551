"""Commands that bring models into the registry, mark them there and take them elsewhere: pull, tag, push."""

from __future__ import annotations

import os
import re
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from llmos.syscalls.errors import BadArgument, BadState, Exists, LlmosError, from_wire
from llmos.syscalls.types import TaskResult, TransformRecipe
from llmos.syscalls.wire import Progress
from llmos.userland.objects import Task
from llmos.userland.places import host_path

from .. import text
from ..cli import Cli
from .models import progress_bar

ENDED = ("done", "failed", "cancelled")
HUB = "hf:"
REMOTE = ("http://", "https://", "llmos+http://", "llmos+https://")


def pull(cli: Cli, values: Namespace) -> int:
    """A folder, a .gguf file, a model of the hub or of another LLM OS; Ctrl-C cancels it."""
    if not values.target and not default_name(values.source):
        want = f"{values.source.rstrip('/')}/models/NAME"
        raise BadArgument(f"{values.source} names no model: write {want}", name="source", got=values.source, want=want)
    source = _source(cli, values.source)
    target = cli.stored(values.target) if values.target else f"/models/{default_name(values.source)}"
    options: dict[str, Any] = {"replace": True} if values.force else {}
    if values.revision:
        options["revision"] = values.revision
    if values.dequantize:
        options["dequantize"] = True
    recipe = TransformRecipe(kind="import", options=options)
    with _as_typed(source, values.source):
        return run_job(cli, [source], target, recipe, f"pulling {values.source}", detach=values.detach)


def push(cli: Cli, values: Namespace) -> int:
    """To a folder of this machine, or to another LLM OS."""
    source = cli.stored(values.model)
    remote = values.target.startswith(REMOTE)
    out, shown = (values.target, values.target) if remote else written_at(cli, values.target)
    recipe = TransformRecipe(kind="push", options={"replace": True} if values.force else {})
    return run_job(cli, [source], out, recipe, f"pushing {source}", detach=values.detach, shown=shown)


def tag(cli: Cli, values: Namespace) -> int:
    """Give a version a tag, or take it away."""
    path = cli.stored(values.model)
    mount, inner = cli.system.mount_of(path)
    name, _, version = inner.partition("@")
    options = {"name": name, "tag": values.tag, "remove": values.remove, **({"version": version} if version else {})}
    assert mount.handle is not None
    after = cli.system.control(mount.handle, "tag", **options)
    if not cli.out.result(after):
        report = after.fields["report"]
        tags = ", ".join(report["tags"]) or "no tags"
        cli.out.line(f"{path.partition('@')[0]}@{report['version']} has {tags}")
    return 0


def run_job(
    cli: Cli,
    sources: Sequence[str],
    out: str,
    recipe: TransformRecipe,
    title: str,
    *,
    detach: bool = False,
    shown: str = "",
    tell: Callable[[dict[str, Any]], None] = lambda _value: None,
) -> int:
    """Start a job, show how far it is, and say what came of it; the exit status. `shown` is where it is for a person,
    and `tell` says more about the result.

    With --json: one progress object a line, then the result.
    """
    task = cli.system.transform(sources, out, recipe)
    if detach:
        if cli.private:
            task.cancel()
            raise BadState("--detach needs a kernel that stays: start one with `llmos serve`", state="private")
        if not cli.out.result(task.info):
            cli.out.line(f"{task.info.id} works on it; `wait {task.info.id}` follows it")
        return 0
    try:
        result = follow(cli, task, title)
    except KeyboardInterrupt:
        task.cancel()
        raise
    value = result.value if isinstance(result.value, dict) else {}
    if "error" in value:
        raise from_wire(value["error"])
    if not cli.out.result(result):
        cli.out.line(_told(value, shown) if result.state == "done" else f"{result.id} is {result.state}")
        if result.state == "done":
            tell(value)
    return 0 if result.state == "done" else 1


def follow(cli: Cli, task: Task, title: str) -> TaskResult:
    """Wait for a task; meanwhile show its progress as a bar, or as JSON objects."""
    with progress_bar(cli, title) as show:
        if show is not None or cli.out.as_json:
            with cli.system.watch(["task"], about=task.info.id) as events:
                if task.stat().state not in ENDED:
                    for event in events:
                        if event.fields.get("state") in ENDED:
                            break
                        if "total" in event.fields:
                            names = ("done", "total", "unit", "stage")
                            progress = Progress(**{name: event.fields[name] for name in names})
                            if not cli.out.result(progress) and show is not None:
                                show(progress)
        return task.wait()


@contextmanager
def _as_typed(mounted: str, typed: str) -> Iterator[None]:
    """Errors name a folder of this machine as it was typed, not as it was mounted."""
    try:
        yield
    except LlmosError as error:
        if mounted != typed:
            error.text = re.sub(rf"{re.escape(mounted)}(@local)?(?![\w-])", lambda _found: typed, error.text)
        raise


def default_name(source: str) -> str:
    """What a model is called when nobody says: ORG/NAME of the hub, the last part of a path without its ending."""
    if source.startswith(HUB):
        return source.removeprefix(HUB).partition("@")[0]
    if source.startswith(REMOTE):
        return urlsplit(source).path.partition("/models/")[2].partition("@")[0]
    whole = Path(source.removeprefix("file:")).expanduser().absolute()
    return Path(os.path.normpath(whole)).name.removesuffix(".gguf").partition("@")[0]


def _source(cli: Cli, source: str) -> str:
    """A path of the namespace or a URL; folders and files of this machine are mounted."""
    if source.startswith((HUB, *REMOTE)):
        return source
    if "://" in source:
        want = "./FOLDER, ./FILE.gguf, hf:ORG/NAME or http(s)://HOST:PORT/models/NAME"
        raise BadArgument(
            f"{source}: nothing is brought from there; it takes {want}", name="source", got=source, want=want
        )
    place = host_path(source)
    if place is not None and place.is_file():
        return read_at(cli, source)
    if place is None and not source.startswith("/"):
        raise BadArgument(
            f"{source!r} is no source: write ./{source} for a folder, hf:{source} for a model of the hub",
            name="source", got=source, want="a folder, a .gguf file, hf:ORG/NAME or a URL",
        )  # fmt: skip
    return cli.path(source)


def read_at(cli: Cli, source: str) -> str:
    """The path in the namespace of a file of this machine, whose folder is mounted, or of the namespace."""
    place = host_path(source)
    if place is None:
        return cli.path(source)
    return f"{_mounted(cli, place.parent, writable=False)}/{place.name}"


def written_at(cli: Cli, target: str) -> tuple[str, str]:
    """The folder that is to hold a model: its path in the namespace, and the one for people."""
    place = host_path(target)
    if place is None:
        return cli.path(target), ""
    place.parent.mkdir(parents=True, exist_ok=True)
    return f"{_mounted(cli, place.parent, writable=True)}/{place.name}", str(place)


def _mounted(cli: Cli, folder: Path, *, writable: bool) -> str:
    """A folder of this machine in the namespace, as plain files."""
    for number in range(1, 100):
        path = f"/mnt/files-{number}"
        try:
            cli.system.mount(folder, path, filesystem="files", writable=writable)
        except Exists:
            continue
        return path
    raise Exists("all names like /mnt/files-1 are taken by mounts; unmount some")


def _told(value: dict[str, Any], shown: str) -> str:
    version = f"@{value['version']}" if value.get("version") else ""
    where = f"{value['url']}{version}" if value.get("url") else shown or f"{value.get('path')}{version}"
    if value.get("unchanged"):
        return f"{where} is this model already"
    return f"{where}: {text.several(value.get('files', 0), 'file')}, {text.size(value.get('bytes', 0))}"
