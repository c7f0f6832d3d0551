"""Parts of a model that move themselves: copies of their own, in float32, in the place of what serves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..engine import kinds

HEADS: Mapping[kinds.Kind, Sequence[str]] = {
    kinds.SEQUENCE: ("classifier", "score"), kinds.TOKEN: ("classifier", "score"), kinds.QUESTION: ("qa_outputs",),
}  # fmt: skip
"""What a head of classes is called in models of a kind. It begins at random, so it moves whatever the method is: PEFT
lets the modules of these names move, and saves them beside the adapters."""


class OwnLinear(nn.Linear):
    """A linear layer with its own float32 weights. x [.., in_features] of any dtype to float32 [.., out_features]."""

    @classmethod
    def of(cls, layer: Any) -> OwnLinear:
        """With a copy of the weights of another one."""
        with torch.device("meta"):
            made = cls(layer.in_features, layer.out_features, bias=layer.bias is not None)
        made.weight = nn.Parameter(layer.weight.detach().to(torch.float32, copy=True))
        if layer.bias is not None:
            made.bias = nn.Parameter(layer.bias.detach().to(torch.float32, copy=True))
        return made

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x.float(), self.weight, self.bias)


def own_heads(view: nn.Module, kind: kinds.Kind) -> None:
    """Give a model of classes a head of its own."""
    for name in HEADS.get(kind, ()):
        head = view._modules.get(name)
        if isinstance(head, nn.Linear):
            setattr(view, name, OwnLinear.of(head))
        elif head is not None:
            for path, part in list(head.named_modules()):
                if isinstance(part, nn.Linear):
                    parent, _, last = path.rpartition(".")
                    setattr(head.get_submodule(parent), last, OwnLinear.of(part))
