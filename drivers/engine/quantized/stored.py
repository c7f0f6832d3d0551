"""Layers whose weights are quantized, as a folder has them: what a model is loaded with, before anything is packed.

They answer as the op `quantized_linear` is defined to, without any kernel, and hold their numbers under the names that
they are stored by.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ...ops.quantized import QuantizedWeight, Scheme
from ...ops.quantized_linear import ReferenceQuantized
from ...quant.nearest import dequantized

NUMBERS, SCALE, SHIFT = "numbers", "scale", "shift"
PARTS = (NUMBERS, SCALE, SHIFT)
"""What a layer NAME is stored as: NAME.numbers, NAME.scale, NAME.shift where its scheme has one."""


class StoredLinear(nn.Module):
    """A linear layer of quantized weights. `dtype` is that of its answers, `activations` what inputs are rounded to."""

    def __init__(
        self, weight: QuantizedWeight, bias: nn.Parameter | None, dtype: torch.dtype, activations: str = "model"
    ) -> None:
        super().__init__()
        self.scheme, self.in_features, self.out_features = weight.scheme, weight.ins, weight.outs
        self.dtype, self.activations = dtype, activations
        self.passes = False
        """Whether its numbers may be lost while they are packed: nobody else has them, and they can be made again."""
        self.bias: nn.Parameter | None
        self.register_parameter("bias", bias)
        self.register_buffer(NUMBERS, weight.numbers)
        self.register_buffer(SCALE, weight.scale)
        if weight.shift is not None:
            self.register_buffer(SHIFT, weight.shift)

    @property
    def quantized(self) -> QuantizedWeight:
        """The weights, not copied."""
        named: Any = self
        return QuantizedWeight(
            self.scheme, named.numbers, named.scale, named.shift if self.scheme.shift else None, self.in_features
        )

    @property
    def weight(self) -> Tensor:
        """A copy [N, K] of the weights, for code that looks at them."""
        return dequantized(self.quantized).to(self.dtype)

    def rows(self, ids: Tensor) -> Tensor:
        """The weights of single outputs, [..., K]."""
        if ids.is_meta:
            return ids.new_empty(*ids.shape, self.in_features, dtype=self.dtype)
        return self._reference().rows(ids)

    def forward(self, x: Tensor) -> Tensor:
        """x [.., K] to [.., N]."""
        if x.is_meta:
            return x.new_empty(*x.shape[:-1], self.out_features)
        answer: Tensor = self._reference()(x)
        return answer

    def _reference(self) -> ReferenceQuantized:
        """It holds these very tensors, so that there is nothing to keep."""
        made = ReferenceQuantized([self.quantized], self.bias, self.dtype, self.activations)
        made.dequantize = dequantized
        return made

    def extra_repr(self) -> str:
        return f"{self.in_features} -> {self.out_features}, {self.scheme}, activations {self.activations}"


class StoredEmbedding(nn.Module):
    """An embedding whose rows are those of the quantized output layer that it is tied to, times a scale if it has one.

    The scale is Gemma's: rounded to the dtype of the rows.
    """

    head: StoredLinear

    def __init__(self, head: StoredLinear, original: nn.Embedding) -> None:
        super().__init__()
        self.__dict__["head"] = head  # which is a child elsewhere, and counted there
        self.num_embeddings, self.embedding_dim = original.num_embeddings, original.embedding_dim
        self.padding_idx = original.padding_idx
        self.embed_scale: float | None = getattr(original, "scalar_embed_scale", None)

    @property
    def weight(self) -> Tensor:
        """A copy [V, H] of the weights, for code that looks at them."""
        return self.head.weight

    def forward(self, ids: Tensor) -> Tensor:
        """ids [..] to [.., H]."""
        rows = self.head.rows(ids)
        return rows if self.embed_scale is None else rows * torch.tensor(self.embed_scale, dtype=rows.dtype)


def empty(scheme: Scheme, like: nn.Linear, scale: torch.dtype) -> StoredLinear:
    """A layer in place of `like` on the meta device, to be filled; `scale`: the dtype of its scales and shifts."""
    shape, dtype = scheme.numbers_of(like.out_features, like.in_features)
    scales = (like.out_features, scheme.groups(like.in_features))
    parts = [torch.empty(scales, dtype=scale, device="meta") for _ in range(1 + scheme.shift)]
    numbers = torch.empty(shape, dtype=dtype, device="meta")
    weight = QuantizedWeight(scheme, numbers, parts[0], parts[1] if scheme.shift else None, like.in_features)
    return StoredLinear(weight, like.bias, like.weight.dtype)
