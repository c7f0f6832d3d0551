"""Puts the ops in C++ into an op table."""

from __future__ import annotations

from functools import partial

from ..table import OpTable
from .attention import PackedAttention, PagedAttention
from .build import QUANTIZED
from .layers import KINDS, Layers
from .linear import NativeLinear
from .lora import Lora
from .native import Native
from .quantized import NativeQuantized
from .replay import NativeReplay

NAME = "native"
PART = "native_quantized"
"""Quantized layers where the processor has too little for the other ops."""


def register_native(table: OpTable) -> Native:
    """Add what there is in C++; nothing is compiled before the first case that it may serve, or `Native.prepare`."""
    native = Native()
    attention, layers, lora = PagedAttention(native), Layers(native), Lora(native)
    table.register("paged_attention", NAME, attention, attention.supports)
    packed = PackedAttention(native)
    table.register("packed_attention", NAME, packed, packed.supports)
    table.register("linear", NAME, partial(NativeLinear, native), partial(NativeLinear.supports, native))
    for name, each in ((PART, Native(QUANTIZED)), (NAME, native)):
        make, fits = partial(NativeQuantized, each), partial(NativeQuantized.supports, each)
        table.register("quantized_linear", name, make, fits)
    table.register("replay", NAME, partial(NativeReplay, native), native.supports)
    for call in (layers.add, layers.rms_norm, layers.add_rms_norm, layers.rope, layers.rope_write, layers.write_kv):
        table.register(call.__name__, NAME, call, native.supports)
    for op in KINDS:
        table.register(op, NAME, layers.gated(op), native.supports)
    table.register("lora_shrink", NAME, lora.shrink, lora.supports)
    table.register("lora_expand", NAME, lora.expand, lora.supports)
    return native
