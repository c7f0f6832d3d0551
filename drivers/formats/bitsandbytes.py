"""Checkpoints of bitsandbytes (github.com/bitsandbytes-foundation/bitsandbytes): whole numbers of 8 bits, and fp4, nf4.

Of 8 bits: `weight` int8 [N, K] with `SCB` [N], the largest of each output; w = weight * SCB / 127. Of 4 bits: `weight`
uint8, two numbers to a byte, the first of them high, over all weights row by row; each stands for a value of
`weight.quant_map` [16], times `weight.absmax` of each block of them. Where those are quantized too, they are numbers of
8 bits that stand for a value of `weight.nested_quant_map` [256], times `weight.nested_absmax` of each block, plus an
offset. The sizes of blocks and the shape are JSON in a tensor. Values of a table fit none of our schemes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from llmos.syscalls.errors import BadModel, NotSupported

from ..ops.quantized import QuantizedWeight, Scheme
from .layer import Files, Layer

STATE = ".weight.quant_state.bitsandbytes__"
KINDS = ("nf4", "fp4")
WHOLE = Scheme(8, 0)
LARGEST = 127.0


def layers(settings: Mapping[str, Any], files: Files) -> Iterator[Layer]:
    """The quantized layers. Raises BadModel."""
    del settings
    for each in files:
        if each.endswith(".SCB"):
            yield _whole(files, each.removesuffix(".SCB"))
        elif STATE in each:
            name, _, kind = each.partition(STATE)
            yield _table(files, name, kind)


def _whole(files: Files, name: str) -> Layer:
    outs, ins = files.shape(f"{name}.weight")
    layout = f"{name}.weight_format"
    if layout in files and int(files.read(layout)):
        why = f"{name} lies in the tiles of a GPU; read are rows (weight_format 0)"
        raise NotSupported(why, why=why)

    def read() -> QuantizedWeight:
        numbers = (files.read(f"{name}.weight").short() + WHOLE.middle).to(torch.uint8)
        scale = files.read(f"{name}.SCB").float().view(-1, 1) / LARGEST
        return QuantizedWeight(WHOLE, numbers, scale, None, ins)

    parts = tuple(part for part in (f"{name}.weight", f"{name}.SCB", layout) if part in files)
    return Layer(name, parts, outs, ins, WHOLE, "", torch.float32, read)


def _table(files: Files, name: str, kind: str) -> Layer:
    if kind not in KINDS:
        why = f"{name} is of the kind {kind!r}; read are {', '.join(KINDS)}"
        raise NotSupported(why, why=why)
    try:
        state = json.loads(bytes(files.read(name + STATE + kind).tolist()))
        outs, ins = (int(size) for size in state["shape"])
        size = int(state["blocksize"])
        _check_size(files, f"{name}.weight", outs * ins, 2, 1)
        _check_size(files, f"{name}.weight.absmax", outs * ins, size, min(outs, ins))
        if "nested_blocksize" in state:
            blocks, nested = math.prod(files.shape(f"{name}.weight.absmax")), int(state["nested_blocksize"])
            _check_size(files, f"{name}.weight.nested_absmax", blocks, nested, 1)
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        why = f"{name}{STATE}{kind} describes no weights: {error}"
        raise BadModel(why, file=name, why=why) from error

    def read() -> Tensor:
        packed = files.read(f"{name}.weight").flatten()
        numbers = torch.stack((packed >> 4, packed & 15), dim=1).flatten()[: outs * ins]
        values = files.read(f"{name}.weight.quant_map").float()[numbers.long()]
        largest = _largest(files, name, state).repeat_interleave(size)[: values.numel()]
        return (values * largest).view(outs, ins)

    parts = tuple(part for part in files if part == f"{name}.weight" or part.startswith(f"{name}.weight."))
    return Layer(name, parts, outs, ins, None, f"the values of {kind} are no multiples of a scale", torch.float32, read)


def _check_size(files: Files, name: str, values: int, each: int, least: int) -> None:
    """Raises ValueError unless a tensor has an element for so many values each, and there are some at all."""
    held = math.prod(files.shape(name))
    if min(values, each, least) < 1 or -(-values // each) != held:
        raise ValueError(f"{name} has {held} elements, not one for each {each} of {values}")


def _largest(files: Files, name: str, state: Mapping[str, Any]) -> Tensor:
    """The largest of each block."""
    largest = files.read(f"{name}.weight.absmax")
    if "nested_blocksize" not in state:
        return largest.float()
    values = files.read(f"{name}.weight.nested_quant_map").float()[largest.long()]
    scale = files.read(f"{name}.weight.nested_absmax").float().repeat_interleave(int(state["nested_blocksize"]))
    return values * scale[: values.numel()] + float(state["nested_offset"])
