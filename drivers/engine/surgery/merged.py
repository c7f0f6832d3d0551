"""Linear layers that read the same input, computed as one product.

The first of them, the lead, computes all and hands out slices; a follower that is called with the very same input
takes its slice, and computes its own part when it is called with anything else. So the result is right however the
model's code calls them, and no code of the library is touched.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

GROUPS: Sequence[tuple[str, ...]] = (
    ("q_proj", "k_proj", "v_proj"),
    ("query", "key", "value"),
    ("gate_proj", "up_proj"),
    ("w1", "w3"),
)
"""Names of siblings that read the same input in the library's models."""


class Product:
    """The merged weight [sum of N, K], and the outputs of the last input that not all have taken."""

    def __init__(self, parts: Sequence[nn.Linear]) -> None:
        self.sizes = [part.out_features for part in parts]
        self.weight = torch.cat([part.weight.detach() for part in parts])
        self.bias = None if parts[0].bias is None else torch.cat([part.bias.detach() for part in parts])
        self._input: Tensor | None = None
        self._outputs: list[Tensor | None] = []

    def lead(self, x: Tensor) -> Tensor:
        """The first part of the product, the others wait for their layers."""
        outputs = torch.split(F.linear(x, self.weight, self.bias), self.sizes, dim=-1)
        self._input, self._outputs = x, [None, *outputs[1:]]
        first: Tensor = outputs[0]
        return first

    def follow(self, number: int, x: Tensor) -> Tensor:
        """The part of a follower."""
        waiting = self._outputs[number] if x is self._input else None
        if waiting is None:
            weight, bias = self.part(number)
            return F.linear(x, weight, bias)
        self._outputs[number] = None
        if not any(output is not None for output in self._outputs):
            self._input = None
        return waiting

    def part(self, number: int) -> tuple[Tensor, Tensor | None]:
        """Weight and bias of one layer, as views."""
        start = sum(self.sizes[:number])
        end = start + self.sizes[number]
        return self.weight[start:end], None if self.bias is None else self.bias[start:end]


class MergedLinear(nn.Module):
    """One of several linear layers in a `Product`; the one with number 0 leads."""

    def __init__(self, product: Product, number: int, in_features: int) -> None:
        super().__init__()
        weight, bias = product.part(number)
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)
        self.in_features = in_features
        self.out_features = product.sizes[number]
        self._product = product
        self._number = number

    def forward(self, x: Tensor) -> Tensor:
        """x [.., K] to [.., N]."""
        return self._product.follow(self._number, x) if self._number else self._product.lead(x)

    def whole(self, x: Tensor) -> Tensor:
        """The whole product [.., sum of N] at once."""
        return F.linear(x, self._product.weight, self._product.bias)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, number={self._number}"


def merge(parent: nn.Module) -> bool:
    """Merge the children of a module that are named and shaped as such siblings are; says whether any was."""
    merged = False
    for names in GROUPS:
        parts = [getattr(parent, name, None) for name in names]
        if not _alike(parts):
            continue
        linears = [part for part in parts if isinstance(part, nn.Linear)]
        product = Product(linears)
        for number, (name, part) in enumerate(zip(names, linears, strict=True)):
            setattr(parent, name, MergedLinear(product, number, part.in_features))
        merged = True
    return merged


def _alike(parts: Sequence[nn.Module | None]) -> bool:
    """Plain linear layers of the same input width and dtype, all with a bias or none."""
    if not all(type(part) is nn.Linear for part in parts):
        return False
    kinds = {(part.in_features, part.weight.dtype, part.bias is None) for part in parts if isinstance(part, nn.Linear)}
    return len(kinds) == 1
