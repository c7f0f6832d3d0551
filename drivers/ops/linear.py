"""Linear layers whose frozen weights lie in memory as the processor likes to read them.

The op `linear` of the table makes one: `linear(weights, bias)` takes the weights `[outs, ins]` of one linear layer, or
of several with the same input that become one, and the bias of all outputs or None. What comes back is a module. The
weights passed in are not kept.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from llmos.syscalls.errors import BadArgument

from .table import Spec


Piece = tuple[slice, Tensor]
"""Some outputs, and their weights [some outs, ins]."""

PIECE_BYTES = 8 << 20
"""Of weights that are unpacked at a time, where a layout allows it: the next ones fit into the same memory, so that
unpacking costs less than it does whole, and products with a few rows are as fast as with all of them."""


class PackedLinear(nn.Module, ABC):
    """`forward(x)` is x [..., ins] times the transposed weights plus the bias, rounded once, as [..., outs].

    The weights are frozen: an input's gradient is computed, that of a weight is not. `sizes` are the outputs of each
    linear layer that was merged.
    """

    packed: Tensor
    quick_rows: ClassVar[bool] = True
    """Whether `rows` costs no more than the rows."""

    def __init__(self, sizes: Sequence[int], ins: int, dtype: torch.dtype, bias: Tensor | None) -> None:
        super().__init__()
        self.sizes = tuple(sizes)
        self.in_features, self.out_features = ins, sum(self.sizes)
        self.dtype = dtype
        self.bias: Tensor | None
        self.register_buffer("bias", None if bias is None else bias.detach().to(self.dtype).contiguous(), False)

    @property
    def nbytes(self) -> int:
        """What weights and bias take."""
        return self.packed.nbytes + (0 if self.bias is None else self.bias.nbytes)

    @abstractmethod
    def unpack(self) -> Tensor:
        """A copy of the weights, [outs, ins]."""

    @abstractmethod
    def rows(self, ids: Tensor) -> Tensor:
        """The weights of single outputs, [..., ins]: an embedding that is tied to its head needs no second copy."""

    @abstractmethod
    def product(self, x: Tensor) -> Tensor:
        """`forward` without a gradient."""

    @property
    def piece(self) -> int:
        """Outputs of a piece of `pieces` at most."""
        return self.out_features

    @property
    def scratch(self) -> int:
        """Bytes that `pieces` takes for itself at most."""
        return self.piece * self.in_features * self.dtype.itemsize

    def pieces(self) -> Iterator[Piece]:
        """The weights, one piece after another; each is there until the next is asked for."""
        yield slice(0, self.out_features), self.unpack()

    def input_gradient(self, gradient: Tensor) -> Tensor:
        """Of x [..., ins] from that of the answer [..., outs]; has the weights unpacked in pieces."""
        return added(gradient, self.pieces())

    def forward(self, x: Tensor) -> Tensor:
        if x.dtype != self.dtype or x.shape[-1] != self.in_features:
            got = f"{x.dtype} {tuple(x.shape)}"
            raise BadArgument(f"x is {got}; expected {self.dtype} [..., {self.in_features}]", name="x", got=got)
        if torch.is_grad_enabled() and x.requires_grad:
            return cast(Tensor, _Product.apply(x, self))  # type: ignore[no-untyped-call]
        return self.product(x)

    def extra_repr(self) -> str:
        return f"{self.in_features} -> {' + '.join(map(str, self.sizes))}, bias={self.bias is not None}, {self.dtype}"


class DenseLinear(PackedLinear, ABC):
    """One whose weights are numbers of the dtype that it computes in."""

    def __init__(self, weights: Sequence[Tensor], bias: Tensor | None) -> None:
        """Raises BadArgument when the weights cannot be merged."""
        if not weights or any(weight.shape[1:] != weights[0].shape[1:] or weight.ndim != 2 for weight in weights):
            shapes = [tuple(weight.shape) for weight in weights]
            raise BadArgument(f"weights are {shapes}; expected [outs, ins] with the same ins", name="weights")
        super().__init__([weight.shape[0] for weight in weights], weights[0].shape[1], weights[0].dtype, bias)


class _Product(torch.autograd.Function):
    """The gradient of the input alone; the weights are frozen."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: PackedLinear) -> Tensor:
        ctx.layer = layer
        return layer.product(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return ctx.layer.input_gradient(gradients[0]), None


def added(gradient: Tensor, pieces: Iterable[Piece]) -> Tensor:
    """gradient [..., outs] times weights that come in pieces, [..., ins]: products are those of the dtype, added up in
    float32."""
    sums = torch.empty(0)
    for outs, weights in pieces:
        if len(weights) == gradient.shape[-1]:
            return gradient @ weights
        part = gradient[..., outs] @ weights
        sums = sums.add_(part) if outs.start else part.float()
    return sums.to(gradient.dtype)


def merged(weights: Sequence[Tensor]) -> Tensor:
    """Below one another; a single one is not copied."""
    return weights[0].detach() if len(weights) == 1 else torch.cat([weight.detach() for weight in weights])


class PlainLinear(DenseLinear):
    """The reference: weights as they are, side by side, and `F.linear`."""

    def __init__(self, weights: Sequence[Tensor], bias: Tensor | None) -> None:
        super().__init__(weights, bias)
        self.register_buffer("packed", merged(weights), persistent=False)

    def unpack(self) -> Tensor:
        return self.packed.clone()

    def rows(self, ids: Tensor) -> Tensor:
        return self.packed[ids]

    def product(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.packed, self.bias)

    @property
    def scratch(self) -> int:
        return 0

    def pieces(self) -> Iterator[Piece]:
        yield slice(0, self.out_features), self.packed


class OneDnnLinear(DenseLinear):
    """Weights in the order that oneDNN chooses for this processor; single rows cost an unpacking of all."""

    quick_rows: ClassVar[bool] = False

    def __init__(self, weights: Sequence[Tensor], bias: Tensor | None) -> None:
        super().__init__(weights, bias)
        packed = torch.ops.mkldnn._reorder_linear_weight(merged(weights).contiguous(), None)
        self.register_buffer("packed", packed, persistent=False)

    @staticmethod
    def supports(spec: Spec) -> tuple[bool, str]:
        if spec.get("device") != "cpu" or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
            return False, "oneDNN is not there"
        if spec.get("dtype") != "bfloat16" or not torch.ops.mkldnn._is_mkldnn_bf16_supported():
            return False, "it pays for bfloat16 on processors that multiply it"
        return True, ""

    @property
    def nbytes(self) -> int:
        bias = 0 if self.bias is None else self.bias.nbytes
        return int(torch.ops.mkldnn._nbytes(self.packed)) + bias

    def unpack(self) -> Tensor:
        return self.packed.to_dense()

    def rows(self, ids: Tensor) -> Tensor:
        return self.unpack()[ids]

    def product(self, x: Tensor) -> Tensor:
        call = torch.ops.mkldnn._linear_pointwise
        answer: Tensor = call(x, self.packed, self.bias, "none", [], "")
        return answer
