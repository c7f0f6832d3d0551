"""The shapes of models, and what a step of one must compute and read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

BYTES = 2
"""Of an element that is computed with."""

SCALE_BITS = 16 / 128
"""What a scale of 16 bits for 128 weights adds to each of them."""
HEAD_BITS = 8
"""Of a weight of the head, at least: what peers do, and what is the default here."""


@dataclass(frozen=True)
class Shape:
    """A causal LM: gated units of `inner`, `heads` that share `kv_heads` keys and values of `width` elements; `bits` of
    a weight."""

    name: str
    kind: str
    layers: int
    hidden: int
    inner: int
    heads: int
    kv_heads: int
    width: int
    vocabulary: int
    tied: bool
    context: int = 8192
    bits: int = 16

    @property
    def base(self) -> str:
        """The name of the same shape in 16 bits."""
        return self.name.partition("-int")[0]

    @property
    def body(self) -> int:
        """Weights of the linear layers between embedding and head; norms and biases are below a thousandth."""
        attention = self.hidden * self.width * (2 * self.heads + 2 * self.kv_heads)
        return self.layers * (attention + 3 * self.hidden * self.inner)

    @property
    def head(self) -> int:
        """Weights of the head."""
        return self.hidden * self.vocabulary

    @property
    def bytes(self) -> int:
        """What is read of the weights when one token goes through: the embedding only where it is the head too."""
        return self.body_bytes + self.head_bytes

    @property
    def body_bytes(self) -> int:
        return _bytes(self.body, self.bits)

    @property
    def head_bytes(self) -> int:
        return _bytes(self.head, max(self.bits, HEAD_BITS))

    @property
    def token_bytes(self) -> int:
        """What keys and values of a token take."""
        return BYTES * 2 * self.layers * self.kv_heads * self.width


def _bytes(weights: int, bits: int) -> int:
    return round(weights * (bits + (0 if bits == 16 else SCALE_BITS)) / 8)


@dataclass(frozen=True)
class RowWork:
    """A row's part in a step: so many tokens, after which so many are in its cache; whether logits are wanted."""

    count: int
    length: int
    logits: bool = True


@dataclass(frozen=True)
class Work:
    """A step: operations among all tokens, operations of the head, rows of each, bytes that must be read."""

    flops: float
    tokens: int
    head_flops: float
    logits: int
    bytes: float

    @staticmethod
    def of(shape: Shape, rows: Sequence[RowWork]) -> Work:
        tokens, logits = sum(row.count for row in rows), sum(row.logits for row in rows)
        pairs = sum(row.count * (row.length - (row.count - 1) / 2) for row in rows)
        attention = 4.0 * shape.layers * shape.heads * shape.width * pairs
        read = shape.body_bytes + (shape.head_bytes if logits else 0) + shape.token_bytes * sum(r.length for r in rows)
        return Work(2.0 * tokens * shape.body + attention, tokens, 2.0 * logits * shape.head, logits, read)


_WHOLE = {
    "0.5b": Shape("0.5b", "qwen2", 24, 896, 4864, 14, 2, 64, 151_936, True),
    "1.1b": Shape("1.1b", "llama", 22, 2048, 5632, 32, 4, 64, 32_000, False),
    "tiny": Shape("tiny", "qwen2", 2, 128, 256, 4, 2, 32, 2_048, True),
    "tiny-llama": Shape("tiny-llama", "llama", 2, 128, 256, 4, 2, 32, 2_048, False),
}
SHAPES = _WHOLE | {
    f"{name}-int{bits}": replace(shape, name=f"{name}-int{bits}", bits=bits)
    for name, shape in _WHOLE.items()
    for bits in (8, 4)
}


@dataclass(frozen=True)
class EncoderShape:
    """An encoder: `inner` is the width of its ungated units."""

    name: str
    layers: int
    hidden: int
    inner: int
    heads: int
    vocabulary: int
    context: int = 512

    def flops(self, tokens: int) -> float:
        """Operations for one text of so many tokens."""
        weights = self.layers * (4 * self.hidden**2 + 2 * self.hidden * self.inner)
        return 2.0 * tokens * weights + 4.0 * self.layers * self.hidden * tokens**2


ENCODERS = {
    "encoder": EncoderShape("encoder", 6, 384, 1536, 12, 30_522),
    "tiny-encoder": EncoderShape("tiny-encoder", 2, 64, 128, 4, 2_048),
}
