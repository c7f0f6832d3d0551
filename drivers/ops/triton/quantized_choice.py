"""How a product with weights of 4 or 8 bits is computed: by which kernel, in which blocks, or by a library on weights
made whole for as long as that takes.

`planned` is what is expected; `measured` tables, one for each GPU that was measured, come before it where they know
the shape. Tokens are counted in buckets, so that one figure stands for all that are filled up to it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

from .house import cdiv, power_of_2

BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
"""What is measured is measured for so many tokens; more than the last go as is planned."""
PROGRAMS = 264
"""Programs that keep a device busy: two on each of 132 multiprocessors."""
LEAST_PART = 1024
"""Bytes of a row below which it is not cut further."""
FEW, TRIED, MOST = 1, 4, 64
"""Up to so many tokens go without tensor cores, or are tried so; up to so many go through the kernels where nobody
measured: more are too many for weights to be what takes the time, and the library multiplies best."""
TABLE = Path(__file__).with_name("choices.json")


@dataclass(frozen=True)
class Choice:
    """`way` is gemv, gemm or whole. Of a program: `outs` and `tokens` of its block, `step` bytes of each row at a time;
    `parts` that a row is cut in."""

    way: str
    outs: int = 0
    tokens: int = 0
    step: int = 0
    parts: int = 1
    warps: int = 4
    stages: int = 1


WHOLE = Choice("whole")
FIELDS = {field.name for field in fields(Choice)}


@dataclass(frozen=True)
class Layer:
    """What a choice depends on beside the tokens: outputs, bytes of a row, bits of a number, inputs of a group, and
    what inputs are rounded to."""

    outs: int
    row: int
    width: int
    group: int
    inputs: str = "model"

    @property
    def key(self) -> str:
        rounded = "" if self.inputs == "model" else f" inputs {self.inputs}"
        return f"{self.outs}x{self.row * 8 // self.width} {self.width} bits group {self.group}{rounded}"

    @property
    def whole_numbers(self) -> bool:
        """Whether both sides of the product are: there is one kernel for that, for any number of tokens."""
        return self.inputs == "int8"


def bucket(tokens: int) -> int:
    """The least bucket that holds so many; 0 when none does."""
    return next((size for size in BUCKETS if tokens <= size), 0)


def planned(layer: Layer, tokens: int) -> Choice:
    """What is expected to be quick; 0 for more tokens than any bucket holds."""
    if layer.whole_numbers:
        return gemm(layer, tokens or BUCKETS[-1])
    if not tokens:
        return WHOLE
    if tokens <= FEW:
        return gemv(layer, tokens)
    return gemm(layer, tokens) if tokens <= MOST else WHOLE


def gemv(layer: Layer, tokens: int, bytes_each: int = 0) -> Choice:
    """`bytes_each`: what a thread of 128 loads in a step; by default as much as leaves enough programs, as the more
    outputs a thread has, the less it spends on getting at x."""
    step = min(1024, max(256, power_of_2(layer.row) // 2))
    outs = [max(1, 128 * each // step) for each in ((bytes_each,) if bytes_each else (64, 32, 16))]
    size = next((each for each in outs if cdiv(layer.outs, each) >= PROGRAMS), outs[-1])
    return Choice("gemv", size, power_of_2(tokens), step, parts(layer, cdiv(layer.outs, size), step))


def gemm(layer: Layer, tokens: int) -> Choice:
    """Steps are as long as a group allows, at most the 128 inputs of a block. Sums of whole numbers lie in registers
    beside those that are scaled, so that half as many tokens fit."""
    size = min(64 if layer.whole_numbers else 128, max(16, power_of_2(tokens)))
    step = min(layer.group or 128, 64 if layer.width == 4 else 128)
    outs = 128 if tokens > 64 else 64
    count = cdiv(layer.outs, outs) * cdiv(tokens, size)
    return Choice("gemm", outs, size, step, parts(layer, count, step), 8 if tokens > 64 else 4, 3 if tokens > 64 else 4)


def parts(layer: Layer, programs: int, step: int) -> int:
    """How many parts rows are cut in, so that enough programs have at least a few steps each."""
    wanted = max(1, PROGRAMS // programs) if programs <= PROGRAMS // 2 else 1
    return max(1, min(wanted, layer.row // max(LEAST_PART, 4 * step)))


def candidates(layer: Layer, tokens: int) -> Iterator[Choice]:
    """What is tried when a device is measured; the planned one first."""
    found = {planned(layer, tokens): None}
    if not layer.whole_numbers:
        found[WHOLE] = None
    if tokens <= TRIED and not layer.whole_numbers:
        found |= {gemv(layer, tokens, size): None for size in (16, 32, 64)}
    base = gemm(layer, tokens)
    for outs, warps in ((32, 2), (64, 4), (128, 4), (128, 8)):
        count = cdiv(layer.outs, outs) * cdiv(tokens, base.tokens)
        for stages in (3, 5):
            cut = parts(layer, count, base.step)
            found |= {Choice("gemm", outs, base.tokens, base.step, each, warps, stages): None for each in {1, cut}}
    yield from found


Table = Mapping[str, Mapping[int, Choice]]
"""Of one GPU: for each `Layer.key`, for each bucket, what was quickest."""


@cache
def measured(device: str) -> Table:
    """The table of a GPU by its name; empty where it was never measured. What an older program wrote with other fields
    counts as not measured."""
    tables = json.loads(TABLE.read_text()) if TABLE.exists() else {}
    return {
        key: {int(tokens): Choice(**given) for tokens, given in found.items() if given.keys() == FIELDS}
        for key, found in tables.get(device, {}).items()
    }


@cache
def choose(layer: Layer, tokens: int, device: str) -> Choice:
    """For so many tokens, one of `BUCKETS` or 0 for more, on a GPU of this name."""
    return measured(device).get(layer.key, {}).get(tokens) or planned(layer, tokens)


def told(choice: Choice) -> dict[str, Any]:
    """As it lies in a table."""
    return asdict(choice)
