"""The products of low-rank adapters: decode and prefill, by segments and by slots, one B and several side by side."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from ..reference_lora import LAST, Segment, Slice, Slots, Where, segments_of
from .case import Call, Case, Draws

NOBODY = -1


@dataclass(frozen=True)
class Setting:
    """Tokens of whom, and the shapes of their layer: `ins` to the sum of `outs`, in ranks of `rank`."""

    name: str
    tokens: int
    ins: int
    outs: tuple[int, ...]
    rank: int
    ids: tuple[int, ...] = ()
    """The slot of each token, the first of the stack being `first`; empty where there are segments."""
    first: int = 0
    segments: tuple[Segment, ...] = ()
    places: int = 4
    skipped: int = 0
    """Columns of y that nothing is added to, before each slice."""


TINY = (
    Setting("one token", 1, 40, (24,), 4, ids=(2,)),
    Setting("slots in any order", 5, 70, (40, 17), 3, ids=(9, -1, 8, 11, 9), first=8, skipped=3),
    Setting("nobody", 3, 20, (20,), 8, ids=(-1, -1, -1)),
    Setting("of another bank", 2, 20, (20,), 8, ids=(3, 8), first=8),
    Setting("segments", 23, 40, (24, 8, 8), 4, segments=(Segment(0, 2, 5), Segment(3, 5, 22))),
    Setting("all that comes", 6, 33, (24,), 16, segments=(Segment(1, 0, LAST),)),
    Setting("a sum in parts", 2, 1040, (18,), 2, ids=(0, 1)),
    Setting("four slices", 2, 20, (8, 8, 8, 8), 8, ids=(0, 1)),
    Setting("a large rank", 2, 24, (16,), 70, ids=(0, 1)),
)


def _large() -> Iterator[Setting]:
    """Shapes of 8B models: eight adapters of rank 16, in steps of decode and of prefill."""
    layers = {"qkv": (4096, (4096, 1024, 1024)), "gate and up": (4096, (14336, 14336)), "down": (14336, (4096,))}
    for name, (ins, outs) in layers.items():
        for tokens in (1, 8, 32, 256):
            ids = tuple(sorted(at % 9 - 1 for at in range(tokens))) if tokens > 1 else (0,)
            yield Setting(f"{name}, {tokens} rows", tokens, ins, outs, 16, ids=ids, places=8)
        segments = (Segment(0, 32, 544), Segment(5, 544, 1024))
        yield Setting(f"{name}, prefill", 1024, ins, outs, 16, segments=segments, places=8)
    yield Setting("rank 128", 32, 4096, (4096,), 128, ids=tuple(at % 8 for at in range(32)), places=8)


def cases(tiny: bool) -> Iterator[Case]:
    """Of both ops."""
    for number, setting in enumerate([*TINY, *(() if tiny else _large())]):
        dtypes = ("float32", "bfloat16", "float16") if setting in TINY else ("bfloat16",)
        spec = {"where": "slots" if setting.ids else "segments"}
        yield Case("lora_shrink", setting.name, spec, Shrink(setting, number), dtypes)
        yield Case("lora_expand", setting.name, spec, Expand(setting, number), dtypes)


@dataclass(frozen=True)
class Shrink:
    """Arguments of `lora_shrink`."""

    setting: Setting
    seed: int

    def __call__(self, device: torch.device, dtype: torch.dtype) -> Call:
        one, draws = self.setting, Draws(self.seed, device, dtype)
        rank = one.rank * len(one.outs)
        return Call((draws.normal(one.tokens, one.ins), draws.normal(one.places, rank, one.ins), where_of(one, device)))


@dataclass(frozen=True)
class Expand:
    """Arguments of `lora_expand`."""

    setting: Setting
    seed: int

    def __call__(self, device: torch.device, dtype: torch.dtype) -> Call:
        one, draws = self.setting, Draws(self.seed, device, dtype)
        slices: list[Slice] = []
        end = 0
        for width in one.outs:
            slices.append((end + one.skipped, width))
            end += one.skipped + width
        tokens = one.tokens if one.ids else min(one.segments[-1].end, one.tokens) - one.segments[0].start
        y, b = draws.normal(one.tokens, end), draws.normal(one.places, one.rank, sum(one.outs))
        hidden = draws.normal(tokens, one.rank * len(one.outs))
        several = {"slices": tuple(slices)} if len(slices) > 1 or one.skipped else {}
        return Call((y, hidden, b, where_of(one, device)), several, written=(0,))


def where_of(setting: Setting, device: torch.device) -> Where:
    """Slots where the setting has ids, else segments."""
    if setting.ids:
        return Slots(torch.tensor(setting.ids, dtype=torch.int32, device=device), setting.first)
    return segments_of(setting.segments, device)
