"""Commands about models: show, load, unload, sleep, wake, pin, unpin, keep-alive, swap, alias, rollback."""

from __future__ import annotations

import math
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from llmos.syscalls.types import Kind, ModelInfo, ObjectInfo
from llmos.syscalls.wire import Progress
from llmos.userland.options import LoadFields

from .. import text
from ..cli import Cli
from ..report import read_report, told


@contextmanager
def progress_bar(cli: Cli, title: str) -> Iterator[Callable[[Progress], None] | None]:
    """A bar on the terminal while something long runs; nothing where nobody watches."""
    if cli.out.as_json or not cli.out.terminal:
        yield None
        return
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[amount]}"), TimeElapsedColumn())
    with Bar(*columns, console=cli.out.console, transient=True) as bar:
        task = bar.add_task(title, total=None, amount="")

        def show(progress: Progress) -> None:
            stage = f"{title}: {progress.stage}" if progress.stage else title
            bar.update(
                task, description=stage, completed=progress.done, total=progress.total or None, amount=amount(progress)
            )

        yield show


def amount(progress: Progress) -> str:
    """How far work has come, in its unit."""
    figure = text.size if progress.unit in ("byte", "bytes", "B") else text.count
    if not progress.done and not progress.total:
        return ""
    return f"{figure(progress.done)} of {figure(progress.total)}" if progress.total else figure(progress.done)


def load(cli: Cli, values: Namespace) -> int:
    options: LoadFields = {}
    given = {name: getattr(values, name) for name in ("name", "dtype", "kv_dtype", "quant", "max_context", "group")}
    options.update({name: value for name, value in given.items() if value is not None})  # type: ignore[typeddict-item]
    if values.keep_alive is not None:
        options["keep_alive"] = _keep(values.keep_alive)
    if values.base is not None:
        options["adapter"] = True
    if values.pin:
        options["pin"] = True
    if values.replace:
        options["replace"] = True
    if values.draft is not None:
        options["draft"] = cli.stored(values.draft)
    if values.no_prefix_cache:
        options["prefix_cache"] = False
    base = cli.system.model(values.base) if values.base else None
    if values.dry_run:
        path = cli.stored(values.model)
        return _plan(cli, cli.system.plan_model(path, device=values.device, base=base, **options))
    with progress_bar(cli, f"loading {values.model}") as show:
        path = cli.stored(values.model)
        model = cli.system.load_model(path, device=values.device, base=base, on_progress=show, **options)
    info = model.info
    if not cli.out.result(info):
        held = text.size(sum(row.predicted for row in info.bytes))
        about = f"{info.architecture}, {text.count(info.parameters)} parameters"
        cli.out.line(f"{info.name} ({about}) is on {info.device}, {held}")
    return 0


def _plan(cli: Cli, info: ModelInfo) -> int:
    if cli.out.result(info) or info.plan is None:
        return 0
    plan = info.plan
    evictions = text.several(len(plan.evictions), "eviction")
    verdict = "does not fit" if not plan.fits else f"fits after {evictions}" if plan.evictions else "fits"
    cli.out.line(f"{info.path} {verdict} on {info.device}: needs {text.size(plan.needed)}, {text.size(plan.free)} free")
    cli.out.table(("WHAT", ">BYTES"), [(row.what, text.size(row.predicted)) for row in plan.rows])
    if plan.evictions:
        cli.out.line("would have to sleep for it:")
        gone = [
            (each.model, text.size(each.bytes), text.duration(each.reload_s), text.duration(each.idle_s))
            for each in plan.evictions
        ]
        cli.out.table(("MODEL", ">FREES", ">BACK IN", ">UNUSED FOR"), gone)
    for reason in plan.reasons:
        if reason.code == "plan.fits":
            continue  # the first line says that
        cli.out.page(f"{reason.text}" + (f"; what would help: {reason.change}" if reason.change else ""))
    return 0


def show(cli: Cli, values: Namespace) -> int:
    path = cli.stored(values.model)
    if values.plan is not None:
        given = {"quant": values.quant, "max_context": values.max_context}
        wanted: LoadFields = {}
        wanted.update({name: value for name, value in given.items() if value is not None})  # type: ignore[typeddict-item]
        return _plan(cli, cli.system.plan_model(path, device=values.plan, **wanted))
    entry = cli.system.stat_path(path)
    loaded = [info for info in cli.system.models() if info.fields.get("path") == path]
    report = read_report(cli.system, path)
    if cli.out.result({"entry": entry, "loaded": loaded, "report": report}):
        return 0
    cli.out.pairs(
        [
            ("path", entry.path), ("kind", entry.kind), ("version", entry.version), ("size", text.size(entry.bytes)),
            *((name, _plain(name, value)) for name, value in entry.fields.items()),
        ]
    )
    told(cli.out, report)
    for info in loaded:
        f = info.fields
        cli.out.line(f"\nloaded as {info.name} ({info.id}) on {f.get('device')}: {info.state}, {text.size(info.bytes)}")
        reasons = f.get("rung_reasons", [])
        cli.out.line(f"served by rung {f.get('rung')}" + ("; not by a higher one because:" if reasons else ""))
        for reason in reasons:
            cli.out.line(f"  {reason}")
    return 0


def _plain(name: str, value: Any) -> Any:
    if name == "parameters" and isinstance(value, int):
        return text.count(value)
    if name == "bytes_by_dtype" and isinstance(value, dict):
        return ", ".join(f"{dtype} {text.size(count)}" for dtype, count in value.items())
    if isinstance(value, dict):
        return text.fields(value)
    if isinstance(value, list) and all(isinstance(item, dict) for item in value):
        return "\n".join(_origin(item) for item in value)
    return ", ".join(map(str, value)) if isinstance(value, list) else value


def _origin(entry: dict[str, Any]) -> str:
    """One of the models that a version was made from: how, which, where it lies, how to make it again."""
    version = f"@{entry['version']}" if entry.get("version") else ""
    where = f", stored as {entry['stored']}" if entry.get("stored") else ""
    more = "".join(f", {name} {entry[name]}" for name in ("recipe", "data_sha256") if entry.get(name))
    return f"{entry.get('how') or 'made'} of {entry.get('path', '?')}{version}{where}{more}"


def find_model(cli: Cli, name: str) -> ObjectInfo:
    """A loaded model by name, id or path. Raises NotFound with the names there are."""
    return cli.system.find(Kind.MODEL, name)


def unload(cli: Cli, values: Namespace) -> int:
    freed = cli.system.model(values.model).unload(force=values.force)
    if not cli.out.result(freed):
        cli.out.line(f"{values.model} is unloaded; {text.size(freed.bytes)} freed")
    return 0


def _acting(action: str, sentence: str) -> Callable[[Cli, Namespace], int]:
    """A command that does one thing to a loaded model."""

    def command(cli: Cli, values: Namespace) -> int:
        info = find_model(cli, values.model)
        return _control(cli, info, action, sentence)

    return command


def _control(cli: Cli, info: ObjectInfo, action: str, sentence: str, **options: Any) -> int:
    assert info.handle is not None
    with progress_bar(cli, f"{action} {info.name}") as show:
        after = cli.system.control(info.handle, action, show, **options)
    if not cli.out.result(after):
        cli.out.line(sentence.format(name=info.name or info.id, **options))
    return 0


sleep = _acting("sleep", "{name} is asleep")
wake = _acting("wake", "{name} is awake")
pin = _acting("pin", "{name} is pinned: it will not be evicted")
unpin = _acting("unpin", "{name} may be evicted again")


def keep_alive(cli: Cli, values: Namespace) -> int:
    seconds = _keep(values.duration)
    words = f"for {text.duration(seconds)} without use" if seconds >= 0 else "for ever"
    info = find_model(cli, values.model)
    return _control(cli, info, "keep_alive", f"{{name}} is kept {words}", seconds=seconds)


def _keep(duration: float) -> float:
    """A duration as the contract writes it: -1 is for ever."""
    return -1.0 if math.isinf(duration) else float(duration)


def swap(cli: Cli, values: Namespace) -> int:
    return _control(cli, find_model(cli, values.model), "swap", "{name} serves {to} now", to=values.version)


def alias(cli: Cli, values: Namespace) -> int:
    path = cli.stored(values.model)
    mount, inner = cli.system.mount_of(path)
    name, _, version = inner.partition("@")
    options = {"name": name, "alias": values.alias, **({"version": version} if version else {})}
    after = _renamed(cli, mount, "alias", options, values.reload)
    if not cli.out.result(after):
        cli.out.line(f"{path} is also called {name}@{values.alias}")
        _say_reloaded(cli, after)
    return 0


def _renamed(cli: Cli, mount: ObjectInfo, action: str, options: dict[str, Any], reload: bool) -> ObjectInfo:
    """Change what a name means; with `reload`, the loaded models go over while a bar shows it."""
    assert mount.handle is not None
    with progress_bar(cli, action) as show:
        return cli.system.control(mount.handle, action, show, **options, **({"reload": True} if reload else {}))


def _say_reloaded(cli: Cli, after: ObjectInfo) -> None:
    for moved in after.fields.get("report", {}).get("reloaded", []):
        cli.out.line(f"{moved['model']} went from version {moved['from']} to {moved['to']}")


def rollback(cli: Cli, values: Namespace) -> int:
    path = cli.stored(values.model)
    with progress_bar(cli, "rollback") as show:
        after = cli.system.rollback(path, reload=values.reload, on_progress=show)
    if not cli.out.result(after):
        model = path.partition("@")[0]
        cli.out.line(f"{model} is version {cli.system.stat_path(model).version} again")
        _say_reloaded(cli, after)
    return 0


def _upkeep(
    cli: Cli, action: str, path: str, **options: Any
) -> tuple[ObjectInfo, dict[str, Any], Callable[[str], str]]:
    """Run an action on what lies at a path; also its report, and how its paths are called outside of the mount."""
    mount, inner = cli.system.mount_of(cli.path(path))
    assert mount.handle is not None
    after = cli.system.control(mount.handle, action, **({"name": inner} if inner else {}), **options)
    top = mount.fields["path"].rstrip("/")
    return after, after.fields.get("report", {}), lambda inside: f"{top}/{inside.strip('/')}".rstrip("/")


def fsck(cli: Cli, values: Namespace) -> int:
    """Exit status 1 when something is damaged."""
    after, report, outside = _upkeep(cli, "fsck", values.path, **({"repair": True} if values.repair else {}))
    problems = report.get("problems", [])
    if not cli.out.result(after):
        units = [unit for unit in ("model", "version", "file") if f"{unit}s" in report]
        counts = [text.several(report[f"{unit}s"], unit) for unit in units]
        read = f"{', '.join(counts)}, {text.size(report.get('bytes', 0))} read: " if counts else ""
        found = text.several(len(problems), "problem") if problems else "nothing is wrong"
        cli.out.line(f"fsck of {values.path}: {read}{found}")
        for mended in report.get("repaired", []):
            of = f" of {outside(mended['path'])}@{mended['version']}" if mended["path"] else ""
            cli.out.line(f"repaired: {mended['file']}{of}, from {mended['from']}")
        if report.get("index"):
            cli.out.line(f"the index was made anew: {text.several(report['index'], 'row')} did not agree")
        if problems:
            rows = [(outside(p["path"]), p["version"], p["file"], p["why"]) for p in problems]
            cli.out.table(("PATH", "VERSION", "FILE", "WHAT IS WRONG"), rows)
    return 1 if problems else 0


def gc(cli: Cli, values: Namespace) -> int:
    after, report, outside = _upkeep(cli, "gc", values.path)
    if not cli.out.result(after):
        removed = report.get("removed", [])
        gone = f"{text.several(len(removed), 'version')} and {text.several(report.get('blobs', 0), 'blob')}"
        cli.out.line(f"gc of {values.path}: {gone} removed, {text.size(report.get('bytes', 0))} freed")
        for path in removed:
            cli.out.line(f"  {outside(path)}")
    return 0
