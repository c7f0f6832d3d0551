"""Plain LoRA layers with fewer passes over what they answer.

PEFT multiplies the answer of B by the scale and adds it to the layer's: two passes over as many numbers as the layer
answers with, and one more on the way back. Here the scale is applied between A and B, where there are `rank` numbers
for each token, and the sum is part of the product with B.

For the way back inputs are kept as they come, which layers that read the same ones share: of a base in bfloat16 PEFT
keeps a copy in float32 for each layer, which is made again here.
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
        dropout, scale = layer.lora_dropout["default"], layer.scaling["default"]
        if not isinstance(dropout, nn.Identity):
            x = dropout(x.to(first.dtype))
        if torch.is_autocast_enabled(x.device.type):
            inner = functional.linear(x.to(first.dtype), first) * scale
            return _added(base, inner, second)
        answer: Tensor = _LowRank.apply(base, x, first, second, scale)  # type: ignore[no-untyped-call]
        return answer


class _LowRank(torch.autograd.Function):
    """base [.., out] + scale * x [.., in] times first [rank, in], times second [out, rank], both float32."""

    @staticmethod
    def forward(ctx: Any, base: Tensor, x: Tensor, first: Tensor, second: Tensor, scale: float) -> Tensor:
        inner = functional.linear(x.to(first.dtype), first) * scale
        ctx.save_for_backward(x, inner, first, second)
        ctx.scale = scale
        return _added(base, inner, second)

    @staticmethod
    def backward(ctx: Any, *given: Tensor) -> tuple[Tensor | None, ...]:
        x, inner, first, second = ctx.saved_tensors
        slopes = given[0].flatten(0, -2).to(second.dtype)
        of_second = slopes.t() @ inner.flatten(0, -2) if ctx.needs_input_grad[3] else None
        slopes = slopes @ second * ctx.scale
        of_first = slopes.t() @ x.flatten(0, -2).to(first.dtype) if ctx.needs_input_grad[2] else None
        of_x = (slopes @ first).view(x.shape).to(x.dtype) if ctx.needs_input_grad[1] else None
        return given[0], of_x, of_first, of_second, None


def _added(base: Tensor, inner: Tensor, second: Tensor) -> Tensor:
    """base [.., out] + inner [.., rank] times second [out, rank], in the dtype of base."""
    whole, inner = base.flatten(0, -2), inner.flatten(0, -2)
    if whole.dtype == second.dtype:
        return torch.addmm(whole, inner, second.t()).view(base.shape)
    return torch.addmm(whole.to(second.dtype), inner, second.t()).view(base.shape).to(base.dtype)


def lighten(adapted: nn.Module) -> None:
    """Have all plain LoRA layers of a model go through fewer passes; others stay as they are."""
    for layer in adapted.modules():
        if type(layer) is Linear and not layer.lora_variant:
            layer.__class__ = LowRank
