"""Linear layers on packed weights; those that read the same input are computed as one product.

The first of several siblings, the lead, computes all and hands out slices; a follower that is called with the very same
input takes its slice, and computes its own part when it is called with anything else. So the result is right however
the model's code calls them, and no code of the library is touched.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import torch
from torch import Tensor, nn

from ...ops.float8 import Float8Rows
from ...ops.linear import PackedLinear
from ...ops.quantized import QuantizedWeight
from ...ops.quantized_linear import Float8Taking
from ..quantized.passing import passing
from ..quantized.stored import StoredEmbedding, StoredLinear

Weight = Tensor | QuantizedWeight
Layer = nn.Linear | StoredLinear
Make = Callable[[Sequence[Weight], Tensor | None], PackedLinear]
"""The op `linear`, or `quantized_linear`, for one device and dtype."""

LAYERS = (nn.Linear, StoredLinear)
"""What is packed: these very classes, since others may do more."""

GROUPS: Sequence[tuple[str, ...]] = (
    ("q_proj", "k_proj", "v_proj"),
    ("query", "key", "value"),
    ("gate_proj", "up_proj"),
    ("w1", "w3"),
)
"""Names of siblings that read the same input in the library's models."""


class Product:
    """What several linear layers compute together, and the outputs of the last input that not all have taken."""

    def __init__(self, packed: PackedLinear) -> None:
        self.packed = packed
        self._input: Tensor | None = None
        self._outputs: list[Tensor | None] = []

    def lead(self, x: Tensor) -> Tensor:
        """The first part of the product, the others wait for their layers."""
        outputs = self._split(x)
        self._input, self._outputs = x, [None, *outputs[1:]]
        return outputs[0]

    def follow(self, number: int, x: Tensor) -> Tensor:
        """The part of a follower."""
        waiting = self._outputs[number] if x is self._input else None
        if waiting is None:
            return self._split(x)[number]
        self._outputs[number] = None
        if not any(output is not None for output in self._outputs):
            self._input = None
        return waiting

    def _split(self, x: Tensor) -> list[Tensor]:
        return list(torch.split(self.packed(x), list(self.packed.sizes), dim=-1))


class MergedLinear(nn.Module):
    """One of several linear layers in a `Product`; the one with number 0 leads, and is the module that holds it."""

    def __init__(self, product: Product, number: int) -> None:
        super().__init__()
        self.in_features = product.packed.in_features
        self.out_features = product.packed.sizes[number]
        self.packed = product.packed if number == 0 else None
        self.product = product
        self.number = number

    @property
    def dtype(self) -> torch.dtype:
        """That of inputs and answers."""
        return self.product.packed.dtype

    @property
    def weight(self) -> Tensor:
        """A copy [N, K] of this layer's weights, for code that looks at them."""
        weights: Tensor = torch.split(self.product.packed.unpack(), list(self.product.packed.sizes))[self.number]
        return weights

    def forward(self, x: Tensor) -> Tensor:
        """x [.., K] to [.., N]."""
        return self.product.follow(self.number, x) if self.number else self.product.lead(x)

    @property
    def takes_float8(self) -> bool:
        """Whether `whole` takes inputs that are rounded to e4m3 already."""
        packed = self.product.packed
        return isinstance(packed, Float8Taking) and packed.activations == "float8"

    def whole(self, x: Tensor | Float8Rows) -> Tensor:
        """The whole product [.., sum of N] at once."""
        answer: Tensor = self.product.packed(x)
        return answer

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, number={self.number}"


class SingleLinear(nn.Module):
    """A linear layer on packed weights."""

    def __init__(self, packed: PackedLinear) -> None:
        super().__init__()
        self.in_features, self.out_features = packed.in_features, packed.out_features
        self.packed = packed

    @property
    def weight(self) -> Tensor:
        """A copy [N, K] of the weights, for code that looks at them."""
        return self.packed.unpack()

    @property
    def bias(self) -> Tensor | None:
        return self.packed.bias

    def forward(self, x: Tensor) -> Tensor:
        """x [.., K] to [.., N]."""
        answer: Tensor = self.packed(x)
        return answer


class PackedEmbedding(nn.Module):
    """An embedding whose weights are those of the packed output layer that it is tied to, times a scale if it has one.

    The scale is Gemma's: rounded to the dtype of the weights.
    """

    def __init__(self, packed: PackedLinear, original: nn.Embedding | StoredEmbedding) -> None:
        super().__init__()
        self.packed = packed
        self.num_embeddings, self.embedding_dim = original.num_embeddings, original.embedding_dim
        self.padding_idx = original.padding_idx
        scale = getattr(original, "embed_scale", None)
        self.scale: Tensor | None
        self.register_buffer("scale", None if scale is None else torch.as_tensor(scale).to(packed.dtype), False)

    @property
    def weight(self) -> Tensor:
        """A copy [V, H] of the weights, for code that looks at them."""
        return self.packed.unpack()

    def forward(self, ids: Tensor) -> Tensor:
        """ids [..] to [.., H]."""
        rows = self.packed.rows(ids)
        return rows if self.scale is None else rows * self.scale


def merge(parent: nn.Module, make: Make) -> int:
    """Merge the children of a module that are named and shaped as such siblings are; returns how many products."""
    merged = 0
    for names in GROUPS:
        found = [getattr(parent, name, None) for name in names]
        linears = [part for part in found if isinstance(part, nn.Linear | StoredLinear)]
        if len(linears) < len(names) or not _alike(linears):
            continue
        biases: list[Tensor] = [part.bias for part in linears if part.bias is not None]
        product = Product(make([weight_of(part) for part in linears], torch.cat(biases) if biases else None))
        for number, name in enumerate(names):
            setattr(parent, name, MergedLinear(product, number))
        merged += 1
    return merged


def pack(parent: nn.Module, make: Make, but: Collection[int] = ()) -> int:
    """Pack the plain linear layers among the children of a module, `but` those of these ids; returns how many."""
    packed = 0
    for name in [name for name, _ in parent.named_children()]:
        child = getattr(parent, name)
        if type(child) in LAYERS and id(child) not in but:
            setattr(parent, name, SingleLinear(make([weight_of(child)], child.bias)))
            packed += 1
    return packed


def weight_of(layer: Layer) -> Weight:
    """The weights of a layer that is not packed yet, not copied; some may be read only once."""
    if isinstance(layer, StoredLinear):
        return passing(layer.quantized) if layer.passes else layer.quantized
    return layer.weight


def _alike(linears: Sequence[Layer]) -> bool:
    """Layers of the same input width and dtype, and of one scheme where they are quantized, all with a bias or none."""
    kinds = {
        (type(part), part.in_features, _dtype(part), getattr(part, "scheme", None), part.bias is None)
        for part in linears
    }
    return len(kinds) == 1 and type(linears[0]) in LAYERS


def _dtype(layer: Layer) -> torch.dtype:
    """That of its answers."""
    return layer.dtype if isinstance(layer, StoredLinear) else layer.weight.dtype
