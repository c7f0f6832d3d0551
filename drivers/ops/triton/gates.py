"""Gated units and rotary positions; see `reference_layers`.

    silu_mul:       out = g / (1 + exp(-g)) * u                                    gate and up side by side [.., 2 I]
    gelu_mul:       out = g / 2 (1 + erf(g / sqrt 2)) * u
    gelu_tanh_mul:  out = g / 2 (1 + tanh(sqrt(2 / pi) (g + 0.044715 g^3))) * u
    rope:           [a, b] = [a cos_a - b sin_a, b cos_b + a sin_b]                a and b the halves of R dimensions

Each rounds where the reference does. A program of a unit has a stretch of one row, a program of `rope` some heads of
one token, so that angles are read once for them; heads may lie in the middle of a merged product, and are turned where
they lie.

Bound: bytes. 3 I itemsize for a row of a unit (6 us for 256 rows of 14336 in bfloat16 at 3.4 TB/s), 2 (Hq + Hkv) R
itemsize for a token of `rope`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import triton
import triton.language as tl
from torch import Tensor

from ..checks import mismatch, no_gradient
from ..table import OpTable
from .house import cdiv, power_of_2, served
from .rows import rows_of
from .variants import Variant

KINDS: Mapping[str, int] = {"silu_mul": 0, "gelu_mul": 1, "gelu_tanh_mul": 2}

STRETCH = 1024
"""Elements of a row that one program of a unit makes."""
TURNED = 2048
"""Elements that one program of `rope` turns."""


@triton.jit
def _sigmoid(x):
    """Without an overflow."""
    less = tl.exp(-tl.abs(x))
    return tl.where(x < 0.0, less, 1.0) / (1.0 + less)


@triton.jit
def activate(x, KIND: tl.constexpr):
    """SiLU, or GELU by the error function, or by tanh: (1 + tanh(y)) / 2 is the sigmoid of 2 y."""
    if KIND == 0:
        return x * _sigmoid(x)
    if KIND == 1:
        return 0.5 * x * (1.0 + tl.math.erf(x * 0.7071067811865476))
    return x * _sigmoid(1.5957691216057308 * (x + 0.044715 * x * x * x))


@triton.jit
def _gate(given, out, width, inner, outer, step, KIND: tl.constexpr, BLOCK: tl.constexpr):
    """BLOCK elements of a row."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    gates = given + row // inner * outer + row % inner * step + column
    gate = tl.load(gates, mask=column < width, other=0.0).to(tl.float32)
    up = tl.load(gates + width, mask=column < width, other=0.0).to(tl.float32)
    active = activate(gate, KIND).to(out.dtype.element_ty).to(tl.float32)
    tl.store(out + row * width + column, (active * up).to(out.dtype.element_ty), mask=column < width)


def gated(op: str) -> Callable[[Tensor], Tensor]:
    """`silu_mul`, `gelu_mul` or `gelu_tanh_mul`."""

    def run(gate_up: Tensor) -> Tensor:
        """See the reference. Raises BadArgument for an odd width, NotSupported under grad."""
        no_gradient(op, gate_up)
        width = gate_up.shape[-1] // 2
        if gate_up.shape[-1] % 2:
            raise mismatch(op, "gate_up", tuple(gate_up.shape), "[..., 2 I]")
        out = gate_up.new_empty(*gate_up.shape[:-1], width)
        if out.numel():
            rows = rows_of(gate_up)
            block = min(STRETCH, power_of_2(width))
            _gate[(rows.number, cdiv(width, block))](
                rows.tensor, out, width, *rows[2:], KIND=KINDS[op], BLOCK=block, num_warps=warps(block)
            )
        return out

    return run


def warps(elements: int) -> int:
    """Eight elements a thread."""
    return min(8, max(1, elements // 256))


@triton.jit
def _turn(
    states, token, first, heads, token_step, head_step, cos, sin, rotary, HEADS: tl.constexpr, HALF: tl.constexpr
):
    """Turn HEADS heads of a token from `first` on; `cos` and `sin` are those of the token."""
    head = first + tl.arange(0, HEADS)
    column = tl.arange(0, HALF)
    half = rotary // 2
    near = column < half
    inside = (head < heads)[:, None] & near[None, :]
    low_at = states + token * token_step + head.to(tl.int64)[:, None] * head_step + column[None, :]
    low = tl.load(low_at, mask=inside, other=0.0).to(tl.float32)
    high = tl.load(low_at + half, mask=inside, other=0.0).to(tl.float32)
    cos_low = tl.load(cos + column, mask=near, other=0.0).to(tl.float32)[None, :]
    cos_high = tl.load(cos + half + column, mask=near, other=0.0).to(tl.float32)[None, :]
    sin_low = tl.load(sin + column, mask=near, other=0.0).to(tl.float32)[None, :]
    sin_high = tl.load(sin + half + column, mask=near, other=0.0).to(tl.float32)[None, :]
    kind = states.dtype.element_ty
    new_low = (low * cos_low).to(kind).to(tl.float32) - (high * sin_low).to(kind).to(tl.float32)
    new_high = (high * cos_high).to(kind).to(tl.float32) + (low * sin_high).to(kind).to(tl.float32)
    tl.store(low_at, new_low.to(kind), mask=inside)
    tl.store(low_at + half, new_high.to(kind), mask=inside)


@triton.jit
def _rope(
    q, k, cos, sin, q_heads, k_heads, q_token, q_head, k_token, k_head, cos_token, sin_token, rotary,
    HEADS: tl.constexpr, HALF: tl.constexpr,
):  # fmt: skip
    """HEADS heads of q or of k of one token; those of q come first."""
    token = tl.program_id(0).to(tl.int64)
    block = tl.program_id(1)
    q_blocks = (q_heads + HEADS - 1) // HEADS
    cos += token * cos_token
    sin += token * sin_token
    if block < q_blocks:
        _turn(q, token, block * HEADS, q_heads, q_token, q_head, cos, sin, rotary, HEADS, HALF)
    else:
        _turn(k, token, (block - q_blocks) * HEADS, k_heads, k_token, k_head, cos, sin, rotary, HEADS, HALF)


def rope(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor) -> None:
    """See the reference. Raises BadArgument for tensors of another kind, NotSupported under grad."""
    no_gradient("rope", q, k)
    rotary = cos.shape[-1]
    for name, tensor in (("q", q), ("k", k), ("cos", cos), ("sin", sin)):
        if tensor.dtype != q.dtype or tensor.shape[0] != q.shape[0] or tensor.stride(-1) != 1:
            got = (tensor.dtype, tuple(tensor.shape), tensor.stride())
            raise mismatch("rope", name, got, f"{q.dtype}, {q.shape[0]} tokens, its last dimension dense")
    if cos.shape != sin.shape or rotary % 2 or rotary > min(q.shape[-1], k.shape[-1]):
        raise mismatch("rope", "cos and sin", (tuple(cos.shape), tuple(sin.shape)), "[tokens, even, at most D]")
    if not q.shape[0] or not rotary:
        return
    heads, half = rope_config(q.shape[1], rotary)
    _rope[(q.shape[0], cdiv(q.shape[1], heads) + cdiv(k.shape[1], heads))](
        q, k, cos, sin, q.shape[1], k.shape[1], q.stride(0), q.stride(1), k.stride(0), k.stride(1), cos.stride(0),
        sin.stride(0), rotary, HEADS=heads, HALF=half, num_warps=warps(2 * heads * half),
    )  # fmt: skip


def rope_config(heads: int, rotary: int) -> tuple[int, int]:
    """Heads of a program, and the width of its halves."""
    half = power_of_2(rotary // 2)
    return min(power_of_2(heads), max(1, TURNED // (2 * half))), half


def register(table: OpTable) -> None:
    """Put them into a table."""
    for op in KINDS:
        table.register(op, "triton", gated(op), served)
    table.register("rope", "triton", rope, served)


def _variants() -> Iterator[Variant]:
    for op, dtype in (("silu_mul", "bf16"), ("gelu_mul", "bf16"), ("gelu_tanh_mul", "bf16"), ("silu_mul", "fp32")):
        signature = {"given": f"*{dtype}", "out": f"*{dtype}", "width": "i32:16", "outer": "i32:16", "step": "i32:16"}
        constants = {"inner": 1, "KIND": KINDS[op], "BLOCK": STRETCH}
        yield Variant(f"gates.{op}_{dtype}", _gate, signature, constants, warps(STRETCH))
    for dtype in ("bf16", "fp32"):
        heads, half = rope_config(32, 128)
        pointers = dict.fromkeys(("q", "k", "cos", "sin"), f"*{dtype}")
        sizes = {"q_heads": "i32:16", "k_heads": "i32"}
        steps = dict.fromkeys(("q_token", "q_head", "k_token", "k_head", "cos_token", "sin_token", "rotary"), "i32:16")
        constants = {"HEADS": heads, "HALF": half}
        yield Variant(f"gates.rope_{dtype}", _rope, pointers | sizes | steps, constants, warps(2 * heads * half))


VARIANTS: Sequence[Variant] = tuple(_variants())
