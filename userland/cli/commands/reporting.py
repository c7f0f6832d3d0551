"""The report of a tuning run: shortened beside its record, in full as files, or two runs beside each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llmos.syscalls.errors import BadArgument, BadState, NoSpace
from llmos.userland.reports import pictures, words, writing

from ..cli import Cli

Curves = Mapping[str, Sequence[tuple[float, float]]]


def report_of(run: Mapping[str, Any]) -> Mapping[str, Any]:
    """Empty where the run has none: it has not ended, or holds nothing out."""
    found: Mapping[str, Any] = run["facts"].get("report") or {}
    return found


def without_report(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The other facts of a run."""
    return {name: fact for name, fact in facts.items() if name != "report"}


def shorter(run: Mapping[str, Any]) -> dict[str, Any]:
    """A record without what is long: its curve and its report."""
    return {name: value for name, value in run.items() if name != "curve"} | {"facts": without_report(run["facts"])}


def show(cli: Cli, run: Mapping[str, Any]) -> None:
    """The short version, where there is one."""
    report = report_of(run)
    for line in words.lines(report, short=True) if report else ():
        cli.out.line(line)


def write(cli: Cli, found: Sequence[Mapping[str, Any]], curves: Curves, into: str) -> int:
    """Write the report of one run as files into a folder of this machine.

    Raises:
        BadArgument: there are several runs.
        BadState: the run has no report.
        NoSpace: a file cannot be written.
    """
    if len(found) != 1:
        raise BadArgument("--report writes the report of one run", name="report", got=f"{len(found)} runs", want="one")
    [run] = found
    if not report_of(run):
        live = run["state"] in ("running", "paused")
        why = "it has not ended" if live else "it did not come to its end, or held no rows out (--eval-fraction 0.1)"
        raise BadState(f"{run['id']} has no report: {why}", state=run["state"])
    folder = Path(into).expanduser()
    try:
        names = writing.write(run, curves, folder)
    except OSError as error:
        raise NoSpace(f"{folder}: {error.strerror or error}") from None
    if not cli.out.result({"folder": str(folder), "files": names}):
        cli.out.line(f"{folder / names[0]}, {', '.join(names[1:])}")
        if not pictures.available():
            cli.out.line(pictures.MISSING)
    return 0


def compare(cli: Cli, found: Sequence[Mapping[str, Any]]) -> None:
    """The last figures of several runs with their intervals, a column each; nothing where fewer than two have any."""
    having = {run["id"]: report_of(run)["figures"] for run in found if report_of(run)}
    names = [name for name in next(iter(having.values()), {}) if all(name in figures for figures in having.values())]
    if len(having) < 2 or not names:
        return
    rows = [("held out, after", *having)]
    rows += [
        (words.title(name), *(words.interval(figures[name]["after"]) for figures in having.values())) for name in names
    ]
    for line in words.table(rows):
        cli.out.line(line)
