"""Linear layers whose weights and inputs are e4m3, for GPUs that multiply such numbers; see `quantized_linear`.

    y[t, n] = a[t] b[n] sum_k p[t, k] q[n, k]          a[t] = max_k |x[t, k]| / 448, p = x / a rounded to e4m3

The product is the library's (`torch._scaled_mm`, scales by rows of both); what is here rounds the inputs of a token, in
one pass that also fills tokens up to 16, as the library's kernels want them. Rounding is done in whole numbers, which
are the same on every device, so that the interpreter is no exception.

Bound: bytes. (itemsize + 1) K a token beside the N K bytes of weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn import functional as F

from llmos.syscalls.errors import BadArgument

from ..float8 import FILLED, Float8Rows, room_for
from ..quantized import FLOAT8, QuantizedWeight, concatenated
from ..quantized_linear import Float8Taking
from ..table import Spec
from .house import power_of_2, served
from .variants import Variant

WIDEST = 4096
"""Inputs of a token that are looked at together."""
CAPABILITY = (8, 9)
"""The first GPUs with products of e4m3."""


@triton.jit
def size(x):
    """Of numbers, for the greatest of them: what is no number counts as infinite, so that its token shows it."""
    return tl.where(x == x, tl.abs(x), float("inf"))


@triton.jit
def e4m3(x):
    """The bits of e4m3 nearest to x, ties to even; x is finite and at most 448 in size. Below 2^-6 numbers are whole
    multiples of 2^-9, which adding 2^14 rounds to."""
    bits = x.to(tl.int32, bitcast=True)
    size = bits & 0x7FFFFFFF
    usual = (size + 0x7FFFF + ((size >> 20) & 1) >> 20) - 960
    small = (tl.abs(x) + 16384.0).to(tl.int32, bitcast=True) - 0x46800000
    return (tl.where(tl.abs(x) < 0.015625, small, usual) | ((bits >> 24) & 0x80)).to(tl.uint8)


@triton.jit
def rounded_rows(x, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    """Scales [ROWS] and the bits of the numbers [ROWS, BLOCK] of rows that a program holds."""
    step = tl.div_rn(tl.max(size(x), 1), tl.full((ROWS,), 448.0, tl.float32))
    divisor = tl.where((step == 0.0) | (step == float("inf")), 1.0, step)
    numbers = tl.div_rn(x, tl.broadcast_to(divisor[:, None], (ROWS, BLOCK)))
    return step, e4m3(tl.minimum(tl.maximum(numbers, -448.0), 448.0))


@triton.jit(do_not_specialize=["tokens"])
def _round(x, out, scale, tokens, width, x_row, out_row, BLOCK: tl.constexpr):
    """One token, or one that fills up and is zero."""
    token = tl.program_id(0)
    own = x + token.to(tl.int64) * x_row
    most = 0.0
    for at in range(0, width, BLOCK):
        k = at + tl.arange(0, BLOCK)
        values = tl.load(own + k, mask=(k < width) & (token < tokens), other=0.0).to(tl.float32)
        most = tl.maximum(most, tl.max(size(values), 0))
    step = tl.div_rn(most, 448.0)
    tl.store(scale + token, step)
    divisor = tl.where((step == 0.0) | (step == float("inf")), 1.0, step)
    for at in range(0, out_row, BLOCK):
        k = at + tl.arange(0, BLOCK)
        values = tl.load(own + k, mask=(k < width) & (token < tokens), other=0.0).to(tl.float32)
        numbers = tl.div_rn(values, tl.broadcast_to(divisor, (BLOCK,)))
        numbers = tl.minimum(tl.maximum(numbers, -448.0), 448.0)
        tl.store(out + token.to(tl.int64) * out_row + k, e4m3(numbers), mask=k < out_row)


def rounded(x: Tensor) -> Float8Rows:
    """Tokens x [..., K] in e4m3."""
    made = room_for(x)
    given = x.reshape(-1, x.shape[-1])
    given = given if given.stride(1) == 1 else given.contiguous()
    rows, width = made.numbers.shape
    block = min(WIDEST, power_of_2(width))
    _round[(rows,)](
        given, made.numbers.view(torch.uint8), made.scale, given.shape[0], given.shape[1], given.stride(0), width,
        BLOCK=block, num_warps=max(1, min(8, block // 512)),
    )  # fmt: skip
    return made


class Float8Linear(Float8Taking):
    """Weights of floating numbers with one scale an output; inputs and answers in bfloat16."""

    scale: Tensor

    def __init__(
        self, weights: Sequence[QuantizedWeight], bias: Tensor | None, dtype: torch.dtype, activations: str = "float8"
    ) -> None:
        """Raises BadArgument when the weights cannot be merged, or are of another scheme, dtype or activations."""
        super().__init__(weights, bias, dtype, activations)
        if self.scheme.kind != "float" or self.scheme.group or dtype != torch.bfloat16 or activations != "float8":
            got = f"{self.scheme}, {dtype}, activations {activations}"
            want = "floating numbers of one group, bfloat16, activations float8"
            raise BadArgument(f"these are {got}; expected {want}", name="weights", got=got, want=want)
        whole = concatenated(weights)
        more = -whole.ins % FILLED, -whole.outs % FILLED
        packed = F.pad(whole.numbers.view(torch.uint8), (0, more[0], 0, more[1])).contiguous().view(FLOAT8)
        self.register_buffer("packed", packed, persistent=False)
        self.register_buffer("scale", F.pad(whole.scale.float(), (0, 0, 0, more[1])).view(1, -1), persistent=False)
        filled = None if self.bias is None else F.pad(self.bias, (0, more[1]))
        self.register_buffer("bias", filled, persistent=False)

    @property
    def nbytes(self) -> int:
        return super().nbytes + self.scale.nbytes

    def unpack(self) -> Tensor:
        return self.rows(torch.arange(self.out_features, device=self.packed.device))

    def rows(self, ids: Tensor) -> Tensor:
        numbers = self.packed.view(torch.uint8)[ids].view(FLOAT8)[..., : self.in_features]
        return (numbers.float() * self.scale[0, ids].unsqueeze(-1)).to(self.dtype)

    def product(self, x: Tensor | Float8Rows) -> Tensor:
        if not x.shape[:-1].numel():
            return self.scale.new_empty(*x.shape[:-1], self.out_features, dtype=self.dtype)
        given = x if isinstance(x, Float8Rows) else rounded(x)
        answer = torch._scaled_mm(
            given.numbers, self.packed.T, scale_a=given.scale, scale_b=self.scale, bias=self.bias, out_dtype=self.dtype
        )
        return answer[: given.tokens, : self.out_features].reshape(*x.shape[:-1], self.out_features)


def supports(spec: Spec) -> tuple[bool, str]:
    """What `Float8Linear` takes, on a device that multiplies it."""
    fits, reason = served(spec)
    if not fits:
        return fits, reason
    if (spec.get("kind"), spec.get("group"), spec.get("dtype")) != ("float", 0, "bfloat16"):
        return False, "e4m3 inputs multiply floating numbers with one scale an output, in bfloat16"
    if spec.get("device") == "cuda" and torch.cuda.get_device_capability() < CAPABILITY:
        return False, f"this GPU's products of e4m3 are missing; they came with compute capability {CAPABILITY}"
    return True, ""


def _variants() -> Iterator[Variant]:
    for width, block in ((4096, 4096), (1024, 1024)):
        numbers = dict.fromkeys(("width", "x_row", "out_row"), "i32:16")
        signature = {"x": "*bf16", "out": "*u8", "scale": "*fp32", "tokens": "i32", **numbers}
        yield Variant(f"float8_round bf16 {width}", _round, signature, {"BLOCK": block}, max(1, min(8, block // 512)))


VARIANTS: Sequence[Variant] = tuple(_variants())
