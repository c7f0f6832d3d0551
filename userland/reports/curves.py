"""Curves as text: a line of bars for a terminal that is refreshed, and a chart of several curves beside each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

BARS = "▁▂▃▄▅▆▇█"
MARKS = "●○◆◇■□▲△"
Points = Sequence[tuple[float, float]]
"""Of a curve: step and value, by step."""


def sparkline(values: Sequence[float], width: int = 32) -> str:
    """The values as bars between the least and the most of them, the mean of neighbours where there are more."""
    shown = _squeezed(values, width)
    if not shown:
        return ""
    low, high = min(shown), max(shown)
    scale = (len(BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(BARS[round((value - low) * scale)] for value in shown)


def chart(curves: Mapping[str, Points], width: int = 60, height: int = 12) -> list[str]:
    """The lines of a chart: values upwards, steps to the right, one mark for each curve; no lines without points.

    Where curves meet, the first is seen. Values far above the rest at the beginning are cut off, so that the
    differences at the end can be seen.
    """
    points = [point for curve in curves.values() for point in curve]
    if not points:
        return []
    left, right = min(step for step, _ in points), max(step for step, _ in points)
    low, high = min(value for _, value in points), _top([value for _, value in points])
    rows = [[" "] * width for _ in range(height)]
    for mark, curve in reversed(list(zip(MARKS, curves.values(), strict=False))):
        for step, value in curve:
            across = round((step - left) / (right - left) * (width - 1)) if right > left else 0
            up = round((min(value, high) - low) / (high - low) * (height - 1)) if high > low else 0
            rows[height - 1 - up][across] = mark
    labels = {0: f"{high:.4g}", height - 1: f"{low:.4g}"}
    side = max(len(label) for label in labels.values())
    lines = [f"{labels.get(number, ''):>{side}} │{''.join(row).rstrip()}" for number, row in enumerate(rows)]
    first, last = f"{left:g}", f"{right:g}"
    lines.append(f"{'':>{side}} └{'─' * width}")
    lines.append(f"{'':>{side}}  {first}{last:>{max(width - len(first), len(last) + 1)}}")
    lines += [f"{mark} {name}" for mark, name in zip(MARKS, curves, strict=False)]
    return lines


def _top(values: Sequence[float]) -> float:
    """The most, but no more than thrice as far above the least as nine of ten values are."""
    ordered = sorted(values)
    most = ordered[int(0.9 * (len(ordered) - 1))]
    return min(ordered[-1], ordered[0] + 3 * (most - ordered[0])) if most > ordered[0] else ordered[-1]


def _squeezed(values: Sequence[float], width: int) -> list[float]:
    if len(values) <= width:
        return list(values)
    bounds = [round(part * len(values) / width) for part in range(width + 1)]
    return [sum(values[a:b]) / (b - a) for a, b in pairwise(bounds)]
