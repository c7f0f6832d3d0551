"""What is aimed at, and what was reached."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from measure import Row

from .cells import Cell
from .limits import Rates
from .process import KINDS, OURS
from .shapes import SHAPES

OF_LIMIT = 0.8
NARROW_OF_LIMIT = 0.7
"""The same of weights of 8 and 4 bits."""
NARROW = {8: ("C3", (1.6, 2.0), (0.8, 1.0)), 4: ("C4", (2.0, 3.0), (0.6, 0.85))}
"""Decoding of one request: over `generate` in 16 bits, and over llama.cpp in as many bits; must and goal."""


def rows(cells: Sequence[Cell], rates: Rates) -> list[Row]:
    """All aims of the figures that there are."""
    found: list[Row] = []
    for model in dict.fromkeys(cell.model for cell in cells):
        mine = [cell for cell in cells if cell.model == model]
        narrow = model in SHAPES and SHAPES[model].bits < 16
        for judge in (_requests, _narrow if narrow else _floors, _arrivals, _prefill, _own):
            found.extend(judge(mine, rates))
    return found


def ratio_row(
    name: str, ours: float, peer: float, unit: str, aim: float, floor: float | None = None, most: bool = False,
    note: str = "",
) -> Row:  # fmt: skip
    """A ratio that should be at least `aim`, or at most where `most`; below its floor the work is not done."""
    ratio = ours / peer
    sign = "<=" if most else ">="
    met = ratio <= aim if most else ratio >= aim
    text = f"{sign} {aim:g}"
    if floor is not None:
        held = ratio <= floor if most else ratio >= floor
        text += f" (must {floor:g}{'' if held else ': BELOW'})"
    return Row(name, ours, peer, unit, ratio, text, met, note)


def must_row(name: str, ours: float, peer: float, unit: str, floor: float, goal: float, note: str = "") -> Row:
    """A ratio below whose floor the work is not done; the goal is shown beside it."""
    return Row(name, ours, peer, unit, ours / peer, f"must {floor:g}, goal {goal:g}", ours / peer >= floor, note)


def _of(cells: Sequence[Cell], suite: str, case: str = "") -> dict[str, Cell]:
    return {cell.peer: cell for cell in cells if cell.suite == suite and case in ("", cell.case)}


def _best(found: dict[str, Cell], wanted: Callable[[str], bool] = lambda name: True) -> Cell | None:
    """The best peer with weights of the same width."""
    others = [
        cell for name, cell in found.items()
        if name in KINDS and name not in OURS and SHAPES[cell.model].bits in KINDS[name].bits and wanted(name)
    ]  # fmt: skip
    return max(others, key=lambda cell: cell.value, default=None)


def _cases(cells: Sequence[Cell], suite: str) -> list[str]:
    return list(dict.fromkeys(cell.case for cell in cells if cell.suite == suite))


def _requests(cells: Sequence[Cell], rates: Rates) -> list[Row]:
    made = []
    for case in _cases(cells, "requests"):
        found = _of(cells, "requests", case)
        best = _best(found)
        alone = case == "1"
        for name in OURS:
            if name not in found:
                continue
            ours = found[name]
            label = f"{ours.model} {case} {'request' if alone else 'requests'}, {name}"
            narrow = SHAPES[ours.model].bits < 16
            if best is not None:
                aim = 1.0 if alone else 1.5 if narrow else 1.1
                made.append(ratio_row(label, ours.value, best.value, "t/s", aim, note=f"best peer: {best.peer}"))
            if ours.limit is not None:
                aim = NARROW_OF_LIMIT if narrow else OF_LIMIT
                made.append(ratio_row(f"{label}, of the limit", ours.value, ours.limit, "t/s", aim))
    return made


def _floors(cells: Sequence[Cell], rates: Rates) -> list[Row]:
    one, eight = _of(cells, "requests", "1"), _of(cells, "requests", "8")
    made = []
    if "ours" in one:
        cell = one["ours"]
        read = cell.middle("decode") * SHAPES[cell.model].bytes / 1e9
        name = f"C1 {cell.model} weights read a second"
        made.append(must_row(name, read, rates.bandwidth / 1e9, "GB/s", 0.60, 0.80, "peer: read bandwidth"))
        if "generate" in one:
            decode = (cell.middle("decode"), one["generate"].middle("decode"))
            made.append(must_row(f"C2 {cell.model} decoding, generate", *decode, "t/s", 1.15, 1.4))
    if "ours" in eight and "generate" in one:
        name = f"C7 {eight['ours'].model} 8 requests, generate one by one"
        made.append(must_row(name, eight["ours"].value, one["generate"].value, "t/s", 3.0, 5.0))
    if "ours" in eight and "generate-batch" in eight:
        name = f"C8 {eight['ours'].model} 8 requests, generate_batch"
        made.append(must_row(name, eight["ours"].value, eight["generate-batch"].value, "t/s", 1.3, 2.0))
    return made


def _narrow(cells: Sequence[Cell], rates: Rates) -> list[Row]:
    found = _of(cells, "requests", "1")
    if "ours" not in found:
        return []
    ours, made = found["ours"], []
    shape = SHAPES[ours.model]
    name, *levels = NARROW[shape.bits]
    read = ours.middle("decode") * shape.bytes / 1e9
    label = f"C1 {ours.model} weights read a second"
    made.append(must_row(label, read, rates.bandwidth / 1e9, "GB/s", 0.60, 0.80, "peer: read bandwidth"))
    for number, peer, (must, goal) in zip((name, "C5"), ("generate", "llama.cpp"), levels, strict=True):
        if peer in found:
            decode = ours.middle("decode"), found[peer].middle("decode")
            made.append(must_row(f"{number} {ours.model} decoding, {peer}", *decode, "t/s", must, goal))
    return made


def _arrivals(cells: Sequence[Cell], rates: Rates) -> list[Row]:
    made = []
    for case in _cases(cells, "arrivals"):
        found = _of(cells, "arrivals", case)
        for name in [name for name in OURS if name in found]:
            ours = found[name]
            padded, other = _best(found, lambda n: KINDS[n].padded), _best(found, lambda n: not KINDS[n].padded)
            for best, what, aim in ((padded, "padded batches", 2.0), (other, "continuous batching", 1.0)):
                if best is not None:
                    label = f"{ours.model} random arrivals, {name}, {what}"
                    made.append(ratio_row(label, ours.value, best.value, "t/s", aim, note=f"best peer: {best.peer}"))
    return made


def _prefill(cells: Sequence[Cell], rates: Rates) -> list[Row]:
    made = []
    for case in _cases(cells, "prefill"):
        found = _of(cells, "prefill", case)
        best = _best(found)
        if "ours" in found and best is not None:
            ours = found["ours"]
            label = f"{ours.model} prefill of {case}"
            aim = 1.0 if SHAPES[ours.model].bits == 16 else 1.2
            made.append(ratio_row(label, ours.value, best.value, "t/s", aim, note=f"best peer: {best.peer}"))
    return made


def _own(cells: Sequence[Cell], rates: Rates) -> list[Row]:
    """What ours is compared with itself for, or with one peer."""
    pairs = (
        ("prefix", "hit", "miss", "time to first token, prefix missed over hit", 8.0, 4.0, False),
        ("adapters", "adapters", "base", "adapters in one batch, base", 0.85, None, False),
        ("gap", "arriving", "alone", "p95 gap with a long prompt arriving, without", 1.6, None, True),
        ("encoder", "ours", "pipeline", "encoder, mixed lengths, pipeline", 2.5, 1.5, False),
    )
    made = []
    for suite, mine, theirs, text, aim, floor, most in pairs:
        for case in _cases(cells, suite):
            found = _of(cells, suite, case)
            if mine in found and theirs in found:
                ours, peer = found[mine], found[theirs]
                values = (ours.value, peer.value)
                if ours.less and not most:
                    values = (peer.value, ours.value)
                made.append(ratio_row(f"{ours.model} {text}, {case}", *values, ours.unit, aim, floor, most))
    for case in _cases(cells, "attention"):
        found = _of(cells, "attention", case)
        times = found["sdpa"].value * 1e6, found["native"].value * 1e6
        made.append(must_row(f"C9 decode attention, SDPA over ours, {case}", *times, "us", 0.9, 1.3))
    for case in _cases(cells, "overhead"):
        found = _of(cells, "overhead", case)
        if "step" in found:
            cell = found["step"]
            label, lost = f"{cell.model} C10 engine overhead, {case}", cell.middle("lost")
            made.append(ratio_row(label, lost * cell.value, cell.value, cell.unit, 0.08, 0.12, most=True))
    return made
