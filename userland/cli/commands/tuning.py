"""`tune` begins a task and follows it with a live curve of its loss, `runs` shows and compares what has been."""

from __future__ import annotations

import json
import tomllib
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from llmos.syscalls.errors import BadArgument, BadState, LlmosError, NotFound, from_wire
from llmos.syscalls.types import TunePlan, TuneRecipe
from llmos.userland.objects import Task
from llmos.userland.reports import sinks
from llmos.userland.reports.curves import chart, sparkline

from .. import text
from ..cli import Cli

from . import reporting, searching
from .inference import open_model
from .registry import read_at

RUNS = "/sys/runs"
FIELDS = (
    "method", "objective", "rank", "alpha", "epochs", "max_steps", "batch_size", "learning_rate", "max_length",
    "eval_fraction", "promote_if", "checkpoint_every", "seed",
)  # fmt: skip
"""Fields of a recipe that have an option of their own."""


def tune(cli: Cli, values: Namespace) -> int:
    """Ctrl-C cancels the task; with --json, one object for each progress and then the result."""
    recipe = recipe_of(values)
    if values.detach and cli.private:
        raise BadState("--detach needs a kernel that stays: start one with `llmos serve`", state="private")
    openers = sinks.wanted(values.tensorboard or "", values.wandb or "")
    if values.detach and openers:
        why = "nobody follows a task with --detach: `llmos runs ID --tensorboard DIR` writes its curve afterwards"
        raise BadArgument(why, name="detach", want="no --tensorboard or --wandb beside it")
    with open_model(cli, values.model, values.device) as model:
        data, out = read_at(cli, values.data), cli.stored(values.out)
        if values.plan:
            return _show_plan(cli, model.plan_tune(recipe, data, out), values.model)
        urgency = {"work_class": values.work_class} if values.work_class else {}
        task = model.tune(recipe, data, out, **urgency)
    if values.detach:
        if not cli.out.result(task.info):
            cli.out.line(f"{task.info.id} works on it; `wait {task.info.id}` follows it")
        return 0
    try:
        with sinks.opened(openers, task.info.id, msgspec.to_builtins(recipe)) as followers:
            return _follow(cli, task, f"tuning {values.model}", followers)
    except KeyboardInterrupt:
        task.cancel()
        raise


def recipe_of(values: Namespace) -> TuneRecipe:
    """The recipe that the file and the options say. Raises BadArgument."""
    fields: dict[str, Any] = {"method": "lora"}
    if values.recipe:
        fields |= _read(values.recipe)
    fields |= {name: given for name in FIELDS if (given := getattr(values, name)) is not None}
    for pair in values.set or ():
        name, equals, value = pair.partition("=")
        if not equals:
            raise BadArgument(f"--set {pair}: write NAME=VALUE", name="set", got=pair, want="NAME=VALUE")
        target = fields if name in TuneRecipe.__struct_fields__ else fields.setdefault("options", {})
        target[name] = _value(value)
    file = _read(values.search) if values.search else fields.get("search", {})
    if search := searching.search_of(values, file):
        fields["search"] = search
    try:
        return msgspec.convert(fields, TuneRecipe)
    except msgspec.ValidationError as error:
        raise BadArgument(f"the recipe: {str(error).replace('`', '')}", name="recipe", want="a recipe") from None


def _read(name: str) -> dict[str, Any]:
    try:
        return tomllib.loads(Path(name).expanduser().read_text())
    except OSError as error:
        raise NotFound(f"{name} cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadArgument(f"{name} is no TOML: {error}", name="recipe", got=name, want="a TOML file") from None


def _value(given: str) -> Any:
    """Numbers, lists and true or false as what they are, all else as text."""
    try:
        return json.loads(given)
    except ValueError:
        return given


def _show_plan(cli: Cli, plan: TunePlan, model: str) -> int:
    if not cli.out.result(plan):
        fits = "which is free" if plan.needed <= plan.free else f"{text.size(plan.free)} are free"
        cli.out.line(f"{plan.steps} steps, {text.count(plan.tokens)} tokens")
        cli.out.line(f"{text.size(plan.needed)} beside {model}, {fits}")
        for line in _facts(plan.facts):
            cli.out.line(line)
    return 0 if plan.needed <= plan.free else 1


def _facts(facts: Mapping[str, Any], sized: bool = False, indent: str = "") -> Iterator[str]:
    """A line for each fact that says something; what is a map has its own lines below. `sized`: all are bytes."""
    for name, value in facts.items():
        title, bytes_ = f"{indent}{name.replace('_', ' ')}", sized or name.endswith("bytes")
        if isinstance(value, Mapping):
            if value:
                yield f"{title}:"
                yield from _facts(value, bytes_, indent + "  ")
        elif isinstance(value, list):
            if value:
                yield f"{title}: {', '.join(map(str, value))}"
        elif value:
            yield f"{title}: {text.size(value) if bytes_ else value}"


# ---- following


def _follow(cli: Cli, task: Task, title: str, followers: Sequence[sinks.Sink]) -> int:
    """Show how far it is until it ends, and say what came of it; the exit status."""
    with _live(cli, title) as show:
        for told in task:
            sinks.follow(followers, told)
            if "stage" in told and not cli.out.result(told):
                show(told)
    result = task.wait()
    value = result.value if isinstance(result.value, dict) else {}
    if "error" in value:
        raise from_wire(value["error"])
    if not cli.out.result(result):
        done = result.state == "done"
        cli.out.line(result.reasons[0].text if done and result.reasons else f"{result.id} is {result.state}")
    return 0 if result.state == "done" else 1


@contextmanager
def _live(cli: Cli, title: str) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Where a person watches, one line that is refreshed; else nothing."""
    losses: list[float] = []
    if cli.out.as_json or not cli.out.terminal:
        yield lambda _told: None
        return
    from rich.live import Live

    with Live(console=cli.out.console, transient=True) as live:

        def show(told: Mapping[str, Any]) -> None:
            if told.get("stage") == "train" and "loss" in told:
                losses.append(float(told["loss"]))
            live.update(f"{title}  {status(told, losses)}")

        yield show


def status(told: Mapping[str, Any], losses: Sequence[float]) -> str:
    """One line: how far, the curve of the loss, how fast, how long still."""
    parts = [*searching.status(told), f"{told.get('done', 0)} of {told.get('total', 0)} steps"]
    if told.get("stage") not in ("train", None):
        parts.append(str(told["stage"]))
    if losses:
        parts.append(f"{sparkline(losses)} loss {losses[-1]:.4g}")
    if "eval_loss" in told:
        parts.append(f"held out {told['eval_loss']:.4g}")
    if told.get("tokens_per_s"):
        parts.append(f"{text.count(round(told['tokens_per_s']))} tokens/s")
    if told.get("left_s"):
        parts.append(f"{text.duration(told['left_s'])} left")
    return "  ".join(parts)


# ---- what has been


def runs(cli: Cli, values: Namespace) -> int:
    """All runs, one of them, or several compared."""
    if not values.runs:
        return _list(cli)
    openers = sinks.wanted(values.tensorboard or "", values.wandb or "")
    found = [_run(cli, name) for name in values.runs]
    if openers:
        return _send(cli, found, openers)
    if values.report:
        return reporting.write(cli, found, _curves(found[0]), values.report)
    if cli.out.result(found[0] if len(found) == 1 else found):
        return 0
    if len(found) == 1:
        _show(cli, found[0])
    else:
        _compare(cli, found)
    return 0


def _send(cli: Cli, found: Sequence[Mapping[str, Any]], openers: Sequence[sinks.Opener]) -> int:
    """Write the curves of runs for other programs, and say where they are."""
    for run in found:
        with sinks.opened(openers, run["id"], run["recipe"]) as opened:
            points = sinks.send(opened, run)
            places = [sink.place for sink in opened]
        if not cli.out.result({"run": run["id"], "points": points, "places": places}):
            cli.out.line(f"{run['id']}: {text.several(points, 'point')} written to {' and '.join(places)}")
    return 0


def _run(cli: Cli, name: str) -> dict[str, Any]:
    """The record of a run, with the state that its task has now."""
    run: dict[str, Any] = json.loads(cli.system.read(f"{RUNS}/{name}"))
    if not run:
        raise NotFound(f"the record of {name} cannot be read")
    return run


def _list(cli: Cli) -> int:
    names = [entry.path.rpartition("/")[2] for entry in cli.system.list(RUNS)]
    found = []
    for name in names:
        try:
            found.append(_run(cli, name))
        except LlmosError:
            continue  # it was forgotten meanwhile, or is damaged
    found.sort(key=lambda run: -run["created"])
    if not cli.out.result([reporting.shorter(run) for run in found]):
        columns = ("ID", "State", "Model", "Method", ">Steps", ">Loss", ">Held out", "Result", "Promoted", "When")
        cli.out.table(columns, [_row(run) for run in found], empty="there are no runs")
    return 0


def _row(run: Mapping[str, Any]) -> Sequence[object]:
    version = f"@{run['version']}" if run["version"] else ""
    result = run["out"]["path"].partition("@")[0] + version if run["state"] == "done" else ""
    losses = [f"{run['values'][name]:.4g}" if name in run["values"] else "" for name in ("loss", "eval_loss")]
    steps = f"{run['step']}/{run['steps']}"
    return (
        run["id"], run["state"], run["base"]["name"], run["recipe"]["method"], steps, *losses, result,
        promoted(run), text.ago(run["created"]),
    )  # fmt: skip


def promoted(run: Mapping[str, Any]) -> str:
    """Whether the result is what its name means: `yes` or `no`; empty where there is no result."""
    return ("no", "yes")[bool(run.get("promoted", True))] if run["state"] == "done" else ""


def _show(cli: Cli, run: Mapping[str, Any]) -> None:
    base, plain, rule = run["base"], TuneRecipe(method=""), run["recipe"].get("promote_if", "")
    recipe = {name: value for name, value in run["recipe"].items() if value != getattr(plain, name)}
    lines = {
        "state": run["state"], "model": f"{base['place']['path']}@{base['version']} on {base['device']}",
        "data": _stored_at(run["data"]), "recipe": text.fields(recipe), "seed": run["recipe"]["seed"],
        "code": run["code"], "steps": f"{run['step']} of {run['steps']}", "tokens": text.count(run["tokens"]),
        "result": run["out"]["path"].partition("@")[0] + (f"@{run['version']}" if run["version"] else ""),
        "promoted": promoted(run) + (f", {rule} does not hold" if promoted(run) == "no" else ""),
        **{name.replace("_", " "): f"{value:.5g}" for name, value in run["values"].items()},
        "error": (run["error"] or {}).get("message", ""),
    }  # fmt: skip
    for name, value in lines.items():
        if value not in ("", None):
            cli.out.line(f"{name + ':':<20} {value}")
    for line in _facts(reporting.without_report(searching.without_trials(run["facts"]))):
        cli.out.line(line)
    columns, rows = searching.trials(run["facts"])
    if rows:
        cli.out.table(columns, rows)
    for line in chart(_curves(run)):
        cli.out.line(line)
    reporting.show(cli, run)


def _curves(run: Mapping[str, Any]) -> dict[str, list[tuple[float, float]]]:
    """Those of the loss, by name, where there are any."""
    curves = {name.replace("_", " "): curve(run, name) for name in ("loss", "eval_loss")}
    return {name: points for name, points in curves.items() if points}


def _stored_at(place: Mapping[str, str]) -> str:
    """Where data lie: of a mounted folder of this machine, there, since the mount was one session's."""
    return place["source"] + place["inner"] if place["path"].startswith("/mnt/") else place["path"]


def _compare(cli: Cli, found: Sequence[Mapping[str, Any]]) -> None:
    """What differs between the recipes, the last figures, and the curves in one chart."""
    differing = sorted(
        name for name in found[0]["recipe"] if len({json.dumps(run["recipe"].get(name)) for run in found}) > 1
    )
    columns = ("ID", "State", *differing, ">Steps", ">Loss", ">Held out")
    rows = [
        (run["id"], run["state"], *(run["recipe"].get(name) for name in differing), *_row(run)[4:7]) for run in found
    ]
    cli.out.table(columns, rows)
    reporting.compare(cli, found)
    judged = "eval_loss" if all(curve(run, "eval_loss") for run in found) else "loss"
    for line in chart({f"{run['id']} {judged.replace('_', ' ')}": curve(run, judged) for run in found}):
        cli.out.line(line)


def curve(run: Mapping[str, Any], name: str) -> list[tuple[float, float]]:
    """The points of a figure by step."""
    return [(point["step"], point[name]) for point in run["curve"] if name in point]
