"""How large a run of the engine benches is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from .process import KINDS

MODULES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True)
class Sizes:
    """Lengths are in tokens; pairs are bounds between which the logarithm is uniform."""

    models: tuple[str, ...] = ("0.5b", "1.1b")
    encoder: str = "encoder"
    concurrent: tuple[int, ...] = (1, 8, 16, 32)
    prompt: int = 128
    generate: int = 64
    arriving: int = 48
    arriving_prompt: tuple[int, int] = (16, 256)
    arriving_generate: tuple[int, int] = (8, 128)
    prefill: tuple[int, ...] = (512, 2048)
    prefix: int = 2048
    tail: int = 32
    overhead_rows: tuple[int, ...] = (1, 8, 32)
    overhead_steps: int = 24
    texts: int = 256
    text: tuple[int, int] = (8, 256)
    adapters: int = 8
    rank: int = 16
    adapter_rows: tuple[int, ...] = (8, 32)
    streams: int = 8
    stream: int = 768
    before: int = 48
    late: int = 4096
    attention: tuple[int, int] = (2048, 4)
    stream_probe: tuple[int, int, int] = (128, 2048, 1024)

    def of(self, models: Sequence[str]) -> Sizes:
        """The same with other models."""
        return replace(self, models=tuple(models))

    @property
    def context(self) -> int:
        """Tokens of the longest request that peers get."""
        longest = max(*self.prefill, self.prompt + self.generate, self.arriving_prompt[1] + self.arriving_generate[1])
        return -(-(longest + 64) // 256) * 256

    @property
    def own_context(self) -> int:
        """Tokens of the longest request that only ours gets."""
        longest = max(self.late, self.prefix + self.tail, self.prompt + self.stream)
        return -(-(longest + 256) // 256) * 256


QUICK = Sizes(
    models=("tiny",), encoder="tiny-encoder", concurrent=(1, 8), prompt=16, generate=6, arriving=6,
    arriving_prompt=(4, 32), arriving_generate=(2, 12), prefill=(64,), prefix=192, tail=8, overhead_rows=(1, 4),
    overhead_steps=4, texts=12, text=(4, 24), adapters=2, rank=4, adapter_rows=(4,), streams=2, stream=96, before=8,
    late=256, attention=(256, 4), stream_probe=(8, 1024, 1024),
)  # fmt: skip


@dataclass(frozen=True)
class Options:
    """What to run; `folder` keeps the models."""

    sizes: Sizes
    folder: Path
    suites: tuple[str, ...]
    peers: tuple[str, ...] = tuple(KINDS)
    rounds: int = 5
    threads: int = 2
