"""Plain LoRA layers with fewer passes over what they answer.

PEFT multiplies the answer of B by the scale and adds it to the layer's: two passes over as many numbers as the layer
answers with, and one more on the way back. Here the scale is applied between A and B, where there are `rank` numbers
for each token, and the sum is part of the product with B.
"""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners.lora.layer import Linear
from torch import Tensor, nn
from torch.nn import functional


class LowRank(Linear):
    """A layer of PEFT with its own forward pass; what it cannot do is left to PEFT."""

    def forward(self, x: Tensor, *args: Any, **more: Any) -> Tensor:
        """x [.., in] to [.., out], in the dtype of the layer that it is around."""
        if self.disable_adapters or self.merged or self.active_adapters != ["default"] or args or more:
            given: Tensor = super().forward(x, *args, **more)
            return given
        base: Tensor = self.base_layer(x)
        layer: Any = self
        first, second = (part["default"].weight for part in (layer.lora_A, layer.lora_B))
        inner = functional.linear(layer.lora_dropout["default"](x.to(first.dtype)), first) * layer.scaling["default"]
        whole = torch.addmm(base.to(second.dtype).flatten(0, -2), inner.flatten(0, -2), second.t())
        return whole.view(base.shape).to(base.dtype)


def lighten(adapted: nn.Module) -> None:
    """Have all plain LoRA layers of a model go through fewer passes; others stay as they are."""
    for layer in adapted.modules():
        if type(layer) is Linear and not layer.lora_variant:
            layer.__class__ = LowRank
