"""A report of a tuning run as lines of text: figures with their intervals, classes, curves, mistakes.

The report is the plain data that `drivers/tuning/report.py` makes; what it lacks is left out here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise, zip_longest
from typing import Any

from .curves import Points, chart

Report = Mapping[str, Any]
_WIDTH = 41
_SQUARE = 15
SHORT_CLASSES = 10
"""Classes that the short version shows: of more, the confusion matrix is in the long one alone."""
SHORT_ROWS = 5
"""Rows worth a label that the short version shows."""
SHORT_TEXTS = 2
"""Answers that the short version shows."""


def lines(report: Report, short: bool = False) -> Iterator[str]:
    """The report; `short` without curves, examples and large tables."""
    yield from figures(report)
    classes = report.get("classes") or {}
    if classes:
        yield from _classes(classes, short)
    yield from _groups(report.get("groups") or {})
    yield from _unlabelled(report.get("unlabelled") or {}, short)
    if not short:
        for title, each in charts(report).items():
            yield ""
            yield title
            yield from chart({name: joined(points) for name, points in each.items()}, _WIDTH, _SQUARE)
        yield from _calibration(classes.get("after", {}).get("calibration"))
        yield from _mistakes(report.get("mistakes") or ())
    yield from _texts(report.get("texts") or {}, short)
    if not short:
        yield from _lengths(report.get("lengths") or {})
    if report.get("cut"):
        yield f"left out, as there was too much of it: {', '.join(report['cut'])}"


# ---- figures


def figures(report: Report) -> Iterator[str]:
    """A table: before, after, the difference, and whether it is more than chance."""
    found = report["figures"]
    if not found:
        return
    main = report.get("judged_by", "")
    names = sorted(found, key=lambda name: (name != main, name != "loss"))
    rows = [("", "before", "after", "difference", "")]
    rows += [(title(name), *cells(found[name])) for name in names]
    yield from table(rows)
    share = f"{report['share']:.0%}"
    yield f"[ ] holds {share} of {report['samples']} bootstrap samples; the difference is of the same rows"


def title(name: str) -> str:
    return name.replace("_", " ")


def cells(figure: Mapping[str, Any]) -> tuple[str, str, str, str]:
    """Before, after, difference, and what is to be thought of it."""
    verdict = {"after": "better", "before": "worse"}.get(figure["better"], "")
    if not verdict:
        verdict = "may be chance" if len(figure["difference"]) > 1 else "too few to tell"
    difference = interval(figure["difference"], signed=True)
    return interval(figure["before"]), interval(figure["after"]), difference, verdict


def interval(values: Sequence[float | None], signed: bool = False) -> str:
    """A value, and from where to where it reaches."""
    shown = [number(value, signed) for value in values]
    return f"{shown[0]} [{shown[1]}, {shown[2]}]" if len(shown) == 3 else shown[0]


def number(value: float | None, signed: bool = False) -> str:
    if value is None:
        return "–"
    return f"{value:+.3g}" if signed else f"{value:.4g}"


def table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Lines of columns, the first to the left, the others to the right but the last."""
    widths = [max(map(len, column)) for column in zip_longest(*rows, fillvalue="")]
    for row in rows:
        rest = (cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=False))
        yield "  ".join((row[0].ljust(widths[0]), *rest)).rstrip()


# ---- classes


def _classes(classes: Mapping[str, Any], short: bool) -> Iterator[str]:
    names, after = classes["names"], classes["after"]
    if "confusion" in after and not (short and len(names) > SHORT_CLASSES):
        yield ""
        yield "what is right (rows) and what was said (columns), after"
        yield from confusion(names, after["confusion"])
    if short:
        return
    yield ""
    rows = [("class", "precision", "recall", "F1", "rows")]
    rows += [
        (name, *(number(value) for value in each[:3]), str(each[3]))
        for name, each in zip(names, after["each"], strict=False)
    ]  # fmt: skip
    yield from table(rows)


def confusion(names: Sequence[str], matrix: Sequence[Sequence[int]]) -> Iterator[str]:
    """Counts, each with a shade for its share of its row."""
    shades = " ░▒▓█"
    short = [name[:10] for name in names]
    rows = [("", *short)]
    for name, row in zip(names, matrix, strict=False):
        whole = max(1, sum(row))
        rows.append((name[:20], *(f"{count} {shades[round(count / whole * 4)]}" for count in row)))
    yield from table(rows)


def charts(report: Report) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """Curves by title and name: of each class how much is found at which price, and how precisely."""
    curves = (report.get("classes") or {}).get("curves") or []
    if not curves:
        return {}
    roc = {f"{each['class']}, area {each['auc'][1]:.3f}": _pairs(each["roc"]) for each in curves}
    if len(curves) == 1:
        [one] = curves
        roc[f"before, area {one['auc'][0]:.3f}"] = _pairs(one["roc_before"])
    precision = {
        f"{each['class']}, average precision {each['average_precision'][1]:.3f}": _pairs(each["precision_recall"])
        for each in curves
    }
    return {
        "ROC, after: share found (upwards) by share of false alarms": roc,
        "precision (upwards) by recall, after": precision,
    }


def _pairs(points: Sequence[Sequence[float]]) -> list[tuple[float, float]]:
    return [(across, up) for across, up in points]


def joined(points: Points, steps: int = 24) -> list[tuple[float, float]]:
    """With points between those that lie apart, for a chart that draws no lines."""
    found = list(points[:1])
    for (left, low), (right, high) in pairwise(points):
        parts = max(1, round(steps * max(abs(right - left), abs(high - low))))
        found += [(left + (right - left) * n / parts, low + (high - low) * n / parts) for n in range(1, parts + 1)]
    return found


def _calibration(bins: Mapping[str, Any] | None) -> Iterator[str]:
    if not bins:
        return
    yield ""
    yield f"calibration, after: expected error {number(bins['error'])}"
    rows = [(str(count), f"{likely:.0%}", f"{right:.0%}") for count, likely, right in bins["bins"]]
    yield from table([("rows", "held as likely", "right"), *rows])


# ---- the rest


def _groups(groups: Mapping[str, Any]) -> Iterator[str]:
    if not groups:
        return
    yield ""
    yield f"groups by {groups['column']}, after"
    rows = [("", "rows", "accuracy", "F1 macro")]
    rows += [
        (name, str(each["rows"]), number(each["accuracy"]), number(each["f1_macro"]))
        for name, each in groups["each"].items()
    ]
    yield from table(rows)
    yield ""
    found: list[Sequence[str]] = [("class", "demographic parity", "equal opportunity", "equal odds")]
    found += [(name, *map(number, values)) for name, values in groups["differences"].items()]
    found += [(f"{name}, before", *map(number, values)) for name, values in groups["differences_before"].items()]
    yield from table(found)
    yield "differences between the highest and the lowest group: 0 is alike"


def _mistakes(found: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if not found:
        return
    yield ""
    yield "worst mistakes"
    for each in found:
        yield f"  {number(each['by'])}  {each['said']} for {each['wanted']}: {each['text']}"


def _unlabelled(found: Mapping[str, Any], short: bool) -> Iterator[str]:
    if not found:
        return
    yield ""
    before, after = found["sure"]
    yield f"{found['rows']} rows without labels: sure of {number(before)} of them before, {number(after)} after"
    chosen = found["to_label"]
    shown = chosen[:SHORT_ROWS] if short else chosen
    if chosen:
        left = f" ({len(shown)} of {len(chosen)})" if len(shown) < len(chosen) else ""
        yield f"worth a label next{left}"
    for each in shown:
        yield f"  {each['place']}  doubt {number(each['doubt'])}, said {each['said']}: {each['text']}"


def _texts(texts: Mapping[str, Any], short: bool) -> Iterator[str]:
    if not texts:
        return
    yield ""
    every = texts["examples"]
    shown = every[:SHORT_TEXTS] if short else every
    yield f"{texts['rows']} answers written, up to {texts['tokens']} tokens each; the worst of them after"
    for each in shown:
        yield f"  asked:  {each['prompt']}"
        yield f"  wanted: {each['wanted']}"
        yield f"  before: {each['before']}"
        yield f"  after:  {each['after']}"


def _lengths(sides: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    names = [name for name in sides if sides[name]]
    if not names:
        return
    yield ""
    rows: list[Sequence[str]] = [("tokens", *(title(name) for name in names))]
    rows += [(title(key), *(str(sides[name].get(key, "")) for name in names)) for key in sides[names[0]]]
    yield from table(rows)
