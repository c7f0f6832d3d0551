"""What a run has come to, in full and as plain data: every figure before and after with what chance does to it, which
classes are taken for which, curves, and the worst mistakes. At most `BYTES` as JSON, however many rows and classes."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .judging import Evaluated, figured
from .metrics import classes, curves, drawn
from .metrics.by_objective import MAIN, SMALLER_IS_BETTER, Gathered
from .mistakes import Texts, mistakes

VERSION = 1
BYTES = 48 * 1024
SHARE = 0.95
"""Of the draws that an interval holds."""
SAMPLES = 200
_AT_ONCE = 1 << 20
"""Scores that are reckoned with before others may have a turn."""
_CLASSES, _CURVES, _POINTS = 24, 6, 49
_NAME = 40
_DIGITS = 6
_SMALLER = SMALLER_IS_BETTER | {"mean_absolute_error"}

Summary = Callable[[Mapping[str, float]], dict[str, float]]
Between = Callable[[], None]


def report(objective: str, summary: Summary, before: Evaluated, after: Evaluated, texts: Texts | None = None,
           facts: Mapping[str, Any] | None = None, between: Between = lambda: None) -> dict[str, Any]:  # fmt: skip
    """The report of a run.

    Args:
        objective: of the recipe.
        summary: of the objective: figures out of sums over batches.
        before: the evaluation of the model that had learned nothing.
        after: the one of the result, of the same rows in the same batches.
        texts: what the held-out rows say, for the worst mistakes; None for none of them.
        facts: lengths of rows, `figures` of rows beside these, or whatever else belongs into it; small.
        between: called now and then, so that others may have a turn.
    """
    others = dict(facts or {})
    every = figures(objective, summary, before, after, between) | others.pop("figures", {})
    made: dict[str, Any] = {
        "version": VERSION, "objective": objective, "judged_by": MAIN.get(objective, "loss"), "share": SHARE,
        "samples": SAMPLES, "figures": every, **others,
    }  # fmt: skip
    kind = figured(objective, after.gathered.names)
    if drawn.known(kind) and len(after.gathered.said):
        made["rows"] = drawn.rows_of(after.gathered)
        made["items"] = len(after.gathered.said)
        if after.gathered.said.ndim == 2 and after.gathered.said.is_floating_point():
            made["classes"] = _of_classes(objective, before.gathered, after.gathered, between)
        if texts is not None:
            made["mistakes"] = mistakes(objective, after.gathered, texts)
    return bounded(rounded(made))


# ---- figures


def figures(objective: str, summary: Summary, before: Evaluated, after: Evaluated,
            between: Between = lambda: None) -> dict[str, Any]:  # fmt: skip
    """By name: `before`, `after` and `difference` (after less before), each as value, low and high of its interval.

    Rows are drawn whole, the same for both, so that the interval of the difference is a paired one; of figures that are
    sums over batches (losses, perplexity, tokens that are right), batches are drawn. An interval is widened to its
    value where that lies outside, and left out, where fewer than two rows or batches are. `better` is the one of
    `before` and `after` that is better by more than the interval of the difference; empty where chance could do it.
    """
    made: dict[str, Any] = {}
    kind = figured(objective, after.gathered.names)
    if len(before.sums.get("weight", ())):
        batches = len(before.sums["weight"])
        by_batch = [_sums(summary, each.sums) for each in (before, after)]
        made |= spans(by_batch, batches, "batches", _AT_ONCE // (batches * len(before.sums)), between)
    if drawn.known(kind) and len(before.gathered.said):
        rows = drawn.rows_of(before.gathered)
        by_row = [_items(kind, each.gathered) for each in (before, after)]
        made |= spans(by_row, rows, "rows", _AT_ONCE // before.gathered.said.numel(), between)
    return made


Drawn = Callable[[Tensor], Mapping[str, Tensor]]


def _sums(summary: Summary, sums: Mapping[str, Tensor]) -> Drawn:
    def of(counts: Tensor) -> Mapping[str, Tensor]:
        totals = {name: (counts @ values).tolist() for name, values in sums.items()}
        each = [summary({name: values[n] for name, values in totals.items()}) for n in range(len(counts))]
        return {name: torch.tensor([one[name] for one in each], dtype=torch.float64) for name in each[0]}

    return of


def _items(objective: str, gathered: Gathered) -> Drawn:
    return lambda counts: drawn.figures(objective, gathered, counts)


def spans(both: Sequence[Drawn], units: int, name_of_units: str, at_once: int, between: Between) -> dict[str, Any]:
    """Figures as a report has them (`figures`): `both` are those of before and after, for any draws of `units` (rows or
    batches), of which `at_once` are made before others may have a turn."""
    whole = [of(torch.ones(1, units, dtype=torch.float64)) for of in both]
    counts = drawn.draws(units, SAMPLES) if units > 1 else torch.empty(0, units, dtype=torch.float64)
    parts: list[list[Mapping[str, Tensor]]] = [[], []]
    for part in torch.split(counts, max(1, at_once)) if len(counts) else ():
        for of, found in zip(both, parts, strict=True):
            found.append(of(part))
            between()
    made = {}
    for name in [name for name in whole[1] if name in whole[0]]:
        one, other = (each[name] for each in whole)
        samples = [
            torch.cat([part.get(name, _nothing(part)) for part in found]) if found else torch.empty(0)
            for found in parts
        ]
        values = float(one), float(other), float(other - one)
        spread = (*samples, samples[1] - samples[0])
        before, after, difference = (_interval(v, s) for v, s in zip(values, spread, strict=True))
        made[name] = {
            "before": before, "after": after, "difference": difference, "drawn": name_of_units,
            "better": _better(name, difference),
        }  # fmt: skip
    return made


def _nothing(part: Mapping[str, Tensor]) -> Tensor:
    """No number for any draw of a part."""
    return torch.full_like(next(iter(part.values())), torch.nan)


def _interval(value: float, samples: Tensor) -> list[float]:
    ends = drawn.span(samples, SHARE) if len(samples) else ()
    return [value, min(ends[0], value), max(ends[1], value)] if ends else [value]


def _better(name: str, difference: Sequence[float]) -> str:
    if len(difference) < 3 or difference[1] <= 0 <= difference[2]:
        return ""
    return "after" if (difference[0] < 0) == (name in _SMALLER) else "before"


# ---- classes


def _of_classes(objective: str, before: Gathered, after: Gathered, between: Between) -> dict[str, Any]:
    """What is taken for what, each class by itself, and curves of the most frequent ones."""
    names = [str(name) for name in after.names] or [str(number) for number in range(after.said.shape[1])]
    several = objective == "multi-label"
    wanted = after.wanted > 0.5 if several else after.wanted[:, None] == torch.arange(after.said.shape[1])
    frequent = wanted.sum(0).argsort(descending=True, stable=True).tolist()
    kept = sorted(frequent[: _CLASSES if len(frequent) <= _CLASSES else _CLASSES - 1])
    shown = [names[number][:_NAME] for number in kept]
    made: dict[str, Any] = {
        "names": shown if len(kept) == len(frequent) else [*shown, "others"], "left_out": len(frequent) - len(kept)
    }  # fmt: skip
    for stage, gathered in (("before", before), ("after", after)):
        made[stage] = {"each": _each(gathered, several, kept)}
        if not several:
            made[stage]["confusion"] = _confusion(gathered, kept)
            bins = curves.calibration(gathered.said, gathered.wanted)
            made[stage]["calibration"] = {"error": bins.error, "bins": [list(each) for each in bins.bins]}
        between()
    made["curves"] = _curves(before, after, wanted, several, frequent, names)
    return made


def _each(gathered: Gathered, several: bool, kept: Sequence[int]) -> list[list[float]]:
    """Precision, recall, F1 and how many are of the class; 0 where nothing is said or wanted."""
    numbers = torch.arange(gathered.said.shape[1])
    said = gathered.said > 0 if several else gathered.said.argmax(1)[:, None] == numbers
    wanted = gathered.wanted > 0.5 if several else gathered.wanted[:, None] == numbers
    right, told, there = ((each.sum(0)).tolist() for each in (said & wanted, said, wanted))
    return [
        [right[n] / max(1, told[n]), right[n] / max(1, there[n]), 2 * right[n] / max(1, told[n] + there[n]), there[n]]
        for n in kept
    ]


def _confusion(gathered: Gathered, kept: Sequence[int]) -> list[list[int]]:
    """Rows are what is right, columns what was said; the last of both are all other classes, where there are any."""
    count = gathered.said.shape[1]
    place = torch.full((count,), len(kept))
    place[torch.tensor(kept)] = torch.arange(len(kept))
    size = len(kept) + (len(kept) < count)
    return classes.confusion(place[gathered.said.argmax(1)], place[gathered.wanted], max(2, size))


def _curves(before: Gathered, after: Gathered, wanted: Tensor, several: bool, frequent: Sequence[int],
            names: Sequence[str]) -> list[dict[str, Any]]:  # fmt: skip
    """Each class against all others; of two classes the second, as the first is its mirror."""
    shown = [1] if not several and wanted.shape[1] == 2 else frequent[:_CURVES]
    found = []
    for number in shown:
        both = []
        for gathered in (before, after):
            scores = gathered.said if several else gathered.said.double().log_softmax(1)
            both.append(curves.curves(scores[:, number], wanted[:, number], _POINTS))
        one, other = both
        if one is None or other is None:
            continue
        found.append({
            "class": names[number][:_NAME], "auc": [one.auc, other.auc],
            "average_precision": [one.average_precision, other.average_precision],
            "roc_before": _pairs(one.roc, 3), "roc": _pairs(other.roc, 3),
            "precision_recall": _pairs(other.precision_recall, 3),
        })  # fmt: skip
    return found


def _pairs(points: curves.Points, digits: int) -> list[list[float]]:
    return [[round(across, digits), round(up, digits)] for across, up in points]


# ---- plain and small


def rounded(value: Any) -> Any:
    """Numbers to six digits, and None where there is none: JSON knows no NaN."""
    if isinstance(value, float):
        return float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: rounded(each) for name, each in value.items()}
    return [rounded(each) for each in value] if isinstance(value, list | tuple) else value


def bounded(made: dict[str, Any], room: int = BYTES) -> dict[str, Any]:
    """The same, without what takes most where it would be too large: examples go first, then curves, then classes."""
    made = dict(made)
    for name in ("texts", "mistakes", "unlabelled", "groups", "classes"):
        if len(json.dumps(made).encode()) <= room:
            return made
        if name in made:
            del made[name]
            made["cut"] = [*made.get("cut", ()), name]
    return made
