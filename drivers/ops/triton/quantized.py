"""Linear layers of 4- and 8-bit weights on a GPU: the op `quantized_linear`.

Numbers lie as they are stored. What multiplies them by inputs as they are is chosen by the number of tokens and the
shape (`quantized_choice`): a kernel without tensor cores, one with them, or weights made whole, a piece at a time, and
the library's product. Inputs that are rounded to whole numbers have a kernel of their own (`int8`), in blocks that are
chosen so. Each has one order of sums for a shape, so equal inputs give equal bits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple

import torch
import triton.language as tl
from torch import Tensor
from torch.nn import functional as F

from llmos.syscalls.errors import BadArgument

from ..linear import Piece
from ..quantized import BLOCK, QuantizedWeight, Scheme, concatenated
from ..quantized_linear import QuantizedLinear
from ..table import OpTable, Spec
from . import float8, int8
from . import quantized_kernels as kernels
from .house import cdiv, dot_dtype, served
from .quantized_choice import MOST, WHOLE, Choice, Layer, bucket, choose, gemm, gemv, planned
from .variants import Variant

ROUNDED = ("model", "int8")
INPUTS = "inputs as they are, or whole numbers by inputs rounded to int8"
FOLDED = 1024
"""Numbers of an answer that one program folds."""
PIECE_BYTES = 64 << 20
"""What weights that are made whole take at a time."""
MADE_OUTS = 32
"""Outputs of a program that makes weights whole."""


class Stored(NamedTuple):
    """Numbers [N, bytes of a row] uint8, rows filled up to a multiple of 128 inputs; scale and shift [groups, N]."""

    numbers: Tensor
    scale: Tensor
    shift: Tensor | None


@cache
def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def laid_out(weight: QuantizedWeight) -> Stored:
    """As the kernels read it; what is filled up is zero."""
    filled = cdiv(weight.ins, BLOCK) * BLOCK
    numbers = weight.numbers.view(torch.uint8)
    if weight.scheme.width == 8 and filled != weight.ins:
        numbers = F.pad(numbers, (0, filled - weight.ins))
    more = weight.scheme.groups(filled) - weight.scheme.groups(weight.ins)
    scale, shift = (
        None if each is None else F.pad(each, (0, more)).T.contiguous() for each in (weight.scale, weight.shift)
    )
    assert scale is not None
    return Stored(numbers.contiguous(), scale, shift)


def magic(scheme: Scheme, dtype: torch.dtype) -> int:
    """The bits of a number's fraction in which stored numbers become floating: the least that hold them exactly."""
    if dtype == torch.float16:
        return 10
    return 7 if dtype == torch.bfloat16 and scheme.width == 4 else 23


class TritonQuantized(QuantizedLinear):
    """Weights of any scheme, inputs in the model's dtype; whole numbers also by inputs of `int8`."""

    scale: Tensor
    shift: Tensor | None

    def __init__(
        self, weights: Sequence[QuantizedWeight], bias: Tensor | None, dtype: torch.dtype, activations: str = "model"
    ) -> None:
        """Raises BadArgument when the weights cannot be merged, or for activations that are not multiplied here."""
        super().__init__(weights, bias, dtype, activations)
        if activations not in ROUNDED or (activations == "int8" and self.scheme.kind != "int"):
            said = f"activations are {activations!r}; these kernels multiply {INPUTS}, not by {self.scheme}"
            raise BadArgument(said, name="activations", got=activations, want="model")
        stored = laid_out(concatenated(weights))
        self.register_buffer("packed", stored.numbers, persistent=False)
        self.register_buffer("scale", stored.scale, persistent=False)
        self.register_buffer("shift", stored.shift, persistent=False)
        row, scheme = stored.numbers.shape[1], self.scheme
        self.layer = Layer(self.out_features, row, scheme.width, scheme.group, activations)

    @property
    def nbytes(self) -> int:
        held = (self.packed, self.scale, self.shift, self.bias)
        return sum(each.nbytes for each in held if each is not None)

    def product(self, x: Tensor) -> Tensor:
        given = x.reshape(-1, self.in_features)
        given = given if given.stride(1) == 1 else given.contiguous()
        answer = self.computed(given, self.choice(given.shape[0]))
        return answer.view(*x.shape[:-1], self.out_features)

    def choice(self, tokens: int) -> Choice:
        """What multiplies so many tokens."""
        return choose(self.layer, bucket(tokens), _name(self.packed.device))

    def computed(self, x: Tensor, choice: Choice) -> Tensor:
        """x [T, ins] times the weights, in this way."""
        if not x.shape[0]:
            return x.new_empty(0, self.out_features)
        return self._by_library(x) if choice == WHOLE else self._by_kernel(x, choice)

    def _by_kernel(self, x: Tensor, choice: Choice) -> Tensor:
        tokens, outs = x.shape[0], self.out_features
        out = x.new_empty(tokens, outs)
        split = choice.parts > 1
        sums = x.new_empty(choice.parts, tokens, outs, dtype=torch.float32) if split else out
        step = max(choice.step, kernels.HALF)
        part = cdiv(cdiv(self.layer.row, choice.parts), step) * step
        given = self.scale, self.shift, None if split else self.bias, sums
        grid = cdiv(outs, choice.outs), cdiv(tokens, choice.tokens), choice.parts
        options = {"num_warps": choice.warps, "num_stages": choice.stages}
        if self.activations == "int8":
            filled = self.layer.row * 8 // self.scheme.width
            rounded = int8.rounded(x, filled, self.scheme.group)
            sizes = tokens, outs, self.layer.row, part, filled, rounded.scale.shape[1], tokens * outs
            int8.gemm[grid](*rounded, self.packed, *given, *sizes, **int8.constants(self.scheme, choice), **options)
        else:
            sizes = tokens, outs, self.in_features, self.layer.row, part, x.stride(0), tokens * outs
            launch = {**constants(self.scheme, self.dtype, self.in_features, choice), **options}
            if choice.way == "gemv":
                words = self.packed.view(torch.int32)
                kernels.gemv[(grid[0], choice.parts)](x, words, *given, *sizes, kernels.POWER, **launch)
            else:
                kernels.gemm[grid](x, self.packed, *given, *sizes, **launch)
        if split:
            count = tokens * outs
            kernels.fold[(cdiv(count, FOLDED),)](sums, self.bias, out, count, outs, PARTS=choice.parts, BLOCK=FOLDED)
        return out

    def _by_library(self, x: Tensor) -> Tensor:
        """Weights made whole a piece at a time, which takes no more room than a piece."""
        piece = max(1, PIECE_BYTES // (self.in_features * self.dtype.itemsize))
        if piece >= self.out_features:
            return F.linear(x, self.unpack(), self.bias)
        out = x.new_empty(x.shape[0], self.out_features)
        for at in range(0, self.out_features, piece):
            end = min(at + piece, self.out_features)
            weight = self._made(at, end - at, None)
            if self.bias is None:
                torch.mm(x, weight.T, out=out[:, at:end])
            else:
                torch.addmm(self.bias[at:end], x, weight.T, out=out[:, at:end])
        return out

    def unpack(self) -> Tensor:
        return self._made(0, self.out_features, None)

    @property
    def piece(self) -> int:
        return min(max(1, PIECE_BYTES // (self.in_features * self.dtype.itemsize)), self.out_features)

    @property
    def scratch(self) -> int:
        return self.piece * self.in_features * self.dtype.itemsize

    def pieces(self) -> Iterator[Piece]:
        for at in range(0, self.out_features, self.piece):
            end = min(at + self.piece, self.out_features)
            yield slice(at, end), self._made(at, end - at, None)

    def rows(self, ids: Tensor) -> Tensor:
        flat = ids.flatten().contiguous()
        return self._made(0, flat.shape[0], flat).view(*ids.shape, self.in_features)

    def _made(self, first: int, count: int, ids: Tensor | None) -> Tensor:
        """Weights [count, ins] of outputs from `first` on, or of `ids`."""
        out = torch.empty(count, self.in_features, dtype=self.dtype, device=self.packed.device)
        grid = cdiv(count, MADE_OUTS), self.layer.row // kernels.HALF
        if count:
            kernels.dequantize[grid](
                ids, self.packed, self.scale, self.shift, out, first, count, self.out_features, self.in_features,
                self.layer.row, OUTS=MADE_OUTS, **_scheme(self.scheme),
            )  # fmt: skip
        return out


def _scheme(scheme: Scheme) -> dict[str, Any]:
    return {
        "WIDTH": scheme.width, "GROUP": scheme.group, "FLOAT": scheme.kind == "float", "MIDDLE": scheme.middle
    }  # fmt: skip


def constants(scheme: Scheme, dtype: torch.dtype, ins: int, choice: Choice) -> dict[str, Any]:
    """Of a kernel that multiplies."""
    shared = {**_scheme(scheme), "EVEN": ins % BLOCK == 0, "OUTS": choice.outs, "TOKENS": choice.tokens}
    if choice.way == "gemv":
        return shared | {"CHUNKS": choice.step // kernels.BYTES}
    return shared | {"STEP": choice.step, "BITS": magic(scheme, dtype), "DOT": dot_dtype(dtype)}


def quantized_linear(
    weights: Sequence[QuantizedWeight], bias: Tensor | None, dtype: torch.dtype, activations: str = "model"
) -> QuantizedLinear:
    """The op. Raises BadArgument for weights, dtypes and activations that `supports` refuses."""
    kind = float8.Float8Linear if activations == "float8" else TritonQuantized
    return kind(weights, bias, dtype, activations)


def supports(spec: Spec) -> tuple[bool, str]:
    """Any scheme with inputs as they are, whole numbers with inputs of int8, and floating ones with inputs of e4m3."""
    activations = spec.get("activations")
    if activations == "float8":
        return float8.supports(spec)
    if activations not in ROUNDED or (activations == "int8" and spec.get("kind") != "int"):
        return False, f"{spec.get('kind')} numbers, activations {activations}; these kernels multiply {INPUTS}"
    return served(spec)


def register(table: OpTable) -> None:
    """Add the op."""
    table.register("quantized_linear", "triton", quantized_linear, supports)


def _variant(scheme: Scheme, dtype: torch.dtype, layer: Layer, tokens: int, choice: Choice) -> Variant:
    """One product; bias where there is one part."""
    kind = {torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "fp32"}[dtype]
    whole = {**constants(scheme, dtype, layer.row * 8 // layer.width, choice)}
    if "DOT" in whole:
        whole["DOT"] = {"bf16": tl.bfloat16, "fp16": tl.float16, "fp32": tl.float32}[kind]
    kernel = kernels.gemv if choice.way == "gemv" else kernels.gemm
    absent = {"shift": not scheme.shift, "bias": choice.parts > 1}
    types = {
        "x": f"*{kind}", "words": "*i32", "numbers": "*u8", "scale": "*fp16", "shift": "*fp16", "bias": f"*{kind}",
        "out": "*fp32" if choice.parts > 1 else f"*{kind}", "tokens": "i32",
    }  # fmt: skip
    names = [name for name in kernel.arg_names if name not in whole and not absent.get(name)]
    signature = {name: types.get(name, "i32:16") for name in names}
    none = {name: None for name, away in absent.items() if away}
    about = f"{kind}, {scheme.kind}{scheme.width} group {scheme.group}{' shift' if scheme.shift else ''}"
    name = f"quantized_{choice.way} {about}, {tokens} x {layer.outs}"
    return Variant(name, kernel, signature, {**whole, **none}, choice.warps, choice.stages)


def _variants() -> Iterator[Variant]:
    """Products of an 8B model with few and many tokens, and what is beside them."""
    four, eight, half = Scheme(4, 128), Scheme(8, 0), torch.bfloat16
    for scheme, dtype, outs, ins, tokens in (
        *((scheme, half, 14336, 4096, tokens) for scheme in (four, eight) for tokens in (1, 4, 8, 16, 64, 256)),
        (four, half, 4096, 4096, 1), (four, half, 4096, 4096, 16), (Scheme(4, 32, shift=True), half, 14336, 4096, 1),
        (Scheme(4, 32, shift=True), half, 14336, 4096, 16), (Scheme(4, 64), torch.float16, 14336, 4096, 32),
        (Scheme(8, 128, shift=True), torch.float16, 14336, 4096, 1), (four, torch.float32, 14336, 4096, 16),
        (Scheme(8, 0, "float"), half, 14336, 4096, 1), (Scheme(8, 0, "float"), half, 14336, 4096, 16),
    ):  # fmt: skip
        layer = Layer(outs, scheme.numbers_of(1, ins)[0][1], scheme.width, scheme.group)
        choice = gemm(layer, tokens) if tokens > MOST else planned(layer, tokens)  # which a table may say
        yield _variant(scheme, dtype, layer, tokens, choice)
    layer = Layer(14336, 2048, 4, 128)
    yield replace(_variant(four, half, layer, 4, gemv(layer, 4)), name="quantized_gemv bf16, int4 group 128, 4 tokens")
    fold = {"parts": "*fp32", "bias": "*bf16", "out": "*bf16", "count": "i32:16", "outs": "i32:16"}
    yield Variant("quantized_fold bf16", kernels.fold, fold, {"PARTS": 4, "BLOCK": FOLDED})
    sizes = dict.fromkeys(("outs", "ins", "row"), "i32:16") | dict.fromkeys(("first", "count"), "i32")
    for scheme, ids in ((four, {"ids": "*i64"}), (Scheme(8, 128, shift=True), {})):
        shift = {"shift": "*fp16"} if scheme.shift else {}
        pointers = {**ids, "numbers": "*u8", "scale": "*fp16", **shift, "out": "*bf16"}
        none = {name: None for name in ("ids", "shift") if name not in pointers}
        constant = {**_scheme(scheme), "OUTS": MADE_OUTS, **none}
        yield Variant(f"quantized_dequantize int{scheme.width}", kernels.dequantize, {**pointers, **sizes}, constant)


VARIANTS: Sequence[Variant] = (*_variants(), *float8.VARIANTS, *int8.VARIANTS)
