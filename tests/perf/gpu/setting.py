"""What every part of the bench is told: the device, how large things are, and where files may lie."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Shape:
    """A causal LM of the Qwen3 family."""

    name: str
    layers: int
    hidden: int
    inner: int
    heads: int
    kv_heads: int
    width: int
    vocabulary: int
    tied: bool

    @property
    def parameters(self) -> int:
        """Of the linear layers, the embedding counted once where it is the head too; norms are below a thousandth."""
        attention = self.hidden * self.width * (2 * self.heads + 2 * self.kv_heads)
        body = self.layers * (attention + 3 * self.hidden * self.inner)
        return body + self.hidden * self.vocabulary * (1 if self.tied else 2)

    @property
    def read_bytes(self) -> int:
        """What a step of one token reads of the weights in 16 bits: all but an embedding that is not the head."""
        return 2 * (self.parameters - (0 if self.tied else self.hidden * self.vocabulary))

    @property
    def token_bytes(self) -> int:
        """Keys and values of one token in 16 bits."""
        return 4 * self.layers * self.kv_heads * self.width


SHAPES = {
    "0.6b": Shape("0.6b", 28, 1024, 3072, 16, 8, 128, 151_936, True),
    "1.7b": Shape("1.7b", 28, 2048, 6144, 16, 8, 128, 151_936, True),
    "8b": Shape("8b", 36, 4096, 12288, 32, 8, 128, 151_936, False),
    "tiny": Shape("tiny", 2, 64, 128, 4, 2, 16, 512, True),
}


@dataclass(frozen=True)
class Setting:
    """`device` is cuda or cpu; `tiny`: sizes at which a processor tries every part in seconds."""

    device: str
    tiny: bool
    folder: Path

    @property
    def models(self) -> tuple[str, ...]:
        return ("tiny",) if self.tiny else ("0.6b", "1.7b", "8b")

    @property
    def large(self) -> str:
        """The model that targets are about unless they say another."""
        return self.models[-1]

    def pick(self, usual: int, tiny: int) -> int:
        return tiny if self.tiny else usual

    def told(self) -> dict[str, Any]:
        return {**asdict(self), "folder": str(self.folder)}


Found = dict[str, Any]
"""What a part measured: plain values, kept as they are."""
