"""Launches of the attention kernels: what they serve, with which blocks, and how their arguments are laid out.

`paged_attention` and `packed_attention` are one kernel: to it a packed row is one page that begins at the row's first
token, with no end.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..checks import mismatch, no_gradient
from ..reference_attention import LIMITS
from ..table import OpTable, Spec
from .attention import UNSPECIALIZED, attend, fold
from .house import DTYPES, cdiv, dot_dtype, power_of_2, served
from .variants import Variant

WIDEST = 512
"""Elements of a head that a tile can hold."""

QUANTIZED = tuple(str(dtype).removeprefix("torch.") for dtype in LIMITS)
"""What pages may hold beside the dtype of the model."""

PART_TOKENS = 128
"""So many keys at least are worth a part of their own."""

MOST_PARTS = 64
DECODE_PROGRAMS, PREFILL_PROGRAMS = 1024, 264
"""Keys are cut while there are fewer programs than this: rows differ in length, and 132 processors hold two each."""

ENDLESS = 1 << 30


class Config(NamedTuple):
    """Rows of the score matrix in a block, keys in a tile, parts the keys are cut in; `twice` as in the kernel."""

    block: int
    tile: int
    splits: int
    twice: bool
    warps: int
    stages: int


class Shape(NamedTuple):
    """What a launch is for: tokens and rows of the step, key heads and queries for each, the wider of the widths of
    keys and values, the bytes of an element of q, and how many keys a row can have at most.
    """

    tokens: int
    rows: int
    heads: int
    group: int
    width: int
    itemsize: int
    capacity: int

    @property
    def decode(self) -> bool:
        """Whether a block is one query."""
        return self.tokens <= self.rows

    def queries(self, block: int) -> int:
        """Queries of a block with so many rows of the score matrix."""
        return 1 if self.decode else block // self.group

    def blocks(self, block: int) -> int:
        """Enough of them for any lengths of the rows."""
        return self.tokens if self.decode else self.tokens // self.queries(block) + self.rows


BLOCKS = (
    # width up to, tile of a few queries, (block, tile, warps) of many queries
    (64, 128, (128, 64, 4)),
    (128, 64, (128, 64, 8)),
    (256, 32, (64, 32, 8)),
    (WIDEST, 16, (32, 16, 8)),
)
"""For 16-bit elements."""


def select_config(shape: Shape) -> Config:
    """The configuration for a launch, from its shapes alone."""
    least = max(16, power_of_2(shape.group))
    width = power_of_2(shape.width)
    _, tile, many = next(row for row in BLOCKS if width <= row[0])
    queries = shape.group * shape.tokens // shape.rows
    block, warps, stages = least, 4, 3
    if shape.itemsize > 2:  # products of float32 are made without tensor cores, from registers
        tile, stages = max(16, tile // 4), 2
    elif shape.decode:
        pass
    elif queries >= 256:
        block, tile, warps = max(many[0], least), many[1], many[2]
    elif queries >= 32:
        block = max(min(64, many[0]), least)
    wanted = (DECODE_PROGRAMS if block == least else PREFILL_PROGRAMS) // (shape.blocks(block) * shape.heads)
    possible = min(wanted, shape.capacity // PART_TOKENS, MOST_PARTS)
    return Config(block, tile, 1 << max(0, possible.bit_length() - 1), block > least, warps, stages)


class Attention(NamedTuple):
    """How scores are made; the arguments of the ops by their names."""

    scale: float
    window: int = 0
    softcap: float = 0.0
    sinks: Tensor | None = None
    key_scale: Tensor | None = None
    value_scale: Tensor | None = None
    causal: bool = True


def paged_attention(
    q: Tensor, k_pages: Tensor, v_pages: Tensor, page_table: Tensor, cu_q: Tensor, lengths: Tensor, scale: float,
    window: int = 0, softcap: float = 0.0, sinks: Tensor | None = None, key_scale: Tensor | None = None,
    value_scale: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """See the reference. Reads nothing back; its launch depends on shapes alone.

    Raises BadArgument for tensors of another kind, NotSupported under grad.
    """
    if k_pages.shape[:3] != v_pages.shape[:3] or k_pages.shape[3] != q.shape[2] or q.shape[1] % k_pages.shape[1]:
        want = f"[pages, heads, tokens, {q.shape[2]}] for q {tuple(q.shape)}"
        raise mismatch("paged_attention", "k_pages", tuple(k_pages.shape), want)
    if (k_pages.dtype in LIMITS) != (key_scale is not None) or (v_pages.dtype in LIMITS) != (value_scale is not None):
        raise mismatch("paged_attention", "key_scale", key_scale, f"scales with {' or '.join(QUANTIZED)} pages alone")
    manner = Attention(scale, window, softcap, sinks, key_scale, value_scale)
    capacity = page_table.shape[1] * k_pages.shape[2]
    return _launch(q, (k_pages, v_pages), page_table, cu_q, lengths, manner, k_pages.shape[2], capacity)


def packed_attention(q: Tensor, k: Tensor, v: Tensor, starts: Tensor, scale: float) -> Tensor:
    """See the reference. Reads nothing back; its launch depends on shapes alone.

    Raises BadArgument for tensors of another kind, NotSupported under grad.
    """
    if k.shape[:2] != v.shape[:2] or k.shape[0] != q.shape[0] or k.shape[2] != q.shape[2] or q.shape[1] % k.shape[1]:
        want = f"[{q.shape[0]}, heads, {q.shape[2]}] for q {tuple(q.shape)}"
        raise mismatch("packed_attention", "k", tuple(k.shape), want)
    pages = tuple(part.as_strided((1, *part.transpose(0, 1).shape), _row_strides(part)) for part in (k, v))
    manner = Attention(scale, causal=False)
    return _launch(q, pages, starts[:, None], starts, starts.diff(), manner, ENDLESS, q.shape[0])


def _row_strides(part: Tensor) -> tuple[int, ...]:
    """Those of a page that begins at any token of [T, heads, D]."""
    token, head, last = part.stride()
    return token, head, token, last


def _launch(
    q: Tensor, pages: tuple[Tensor, ...], table: Tensor, cu_q: Tensor, lengths: Tensor, manner: Attention,
    page_tokens: int, capacity: int,
) -> Tensor:  # fmt: skip
    tokens, heads, width = q.shape
    k, v = pages
    kv_heads, value_width = v.shape[1], v.shape[3]
    no_gradient("attention", q, k, v)
    for name, tensor in (("q", q), ("k", k), ("v", v), ("key_scale", manner.key_scale)):
        if tensor is not None and tensor.stride(-1) != 1:
            raise mismatch("attention", name, tensor.stride(), "a dense last dimension")
    rows, group = lengths.shape[0], heads // kv_heads
    out = q.new_empty(tokens, heads, value_width)
    if not tokens or not rows:
        return out
    shape = Shape(tokens, rows, kv_heads, group, max(width, value_width), q.element_size(), capacity)
    config = select_config(shape)
    parts = tops = sums = None
    if config.splits > 1:
        parts = q.new_empty(tokens, heads, config.splits, value_width, dtype=torch.float32)
        tops, sums = q.new_empty(2, tokens, heads, config.splits, dtype=torch.float32)
    scales = [(0, 0) if each is None else each.stride()[:2] for each in (manner.key_scale, manner.value_scale)]
    attend[(shape.blocks(config.block), kv_heads, config.splits)](
        q, k, v, manner.key_scale, manner.value_scale, manner.sinks, table, cu_q, lengths, out, parts, tops, sums, rows,
        manner.scale, manner.softcap, manner.window, q.stride(0), q.stride(1), *k.stride()[:3], *v.stride()[:3],
        *scales[0], *scales[1], table.stride(0), config.splits, cdiv(PART_TOKENS, config.tile),
        **constants(shape, config, manner, (width, value_width), page_tokens), DOT=dot_dtype(q.dtype),
        num_warps=config.warps, num_stages=config.stages,
    )  # fmt: skip
    if parts is not None:
        folded = fold_constants(shape, config, manner, value_width)
        fold[(tokens, heads)](parts, tops, sums, manner.sinks, out, **folded)
    return out


def constants(
    shape: Shape, config: Config, manner: Attention, widths: tuple[int, int], page_tokens: int
) -> dict[str, Any]:
    """What `attend` is compiled for, but for DOT; `widths` of keys and of values."""
    width, value_width = widths
    return {
        "HEADS": shape.heads * shape.group, "GROUP": shape.group, "D": width, "DV": value_width,
        "D_PAD": max(16, power_of_2(width)), "DV_PAD": max(16, power_of_2(value_width)), "PAGE": page_tokens,
        "BLOCK_M": config.block, "BLOCK_Q": shape.queries(config.block), "TILE": config.tile,
        "SPLIT": config.splits > 1, "CAUSAL": manner.causal, "WINDOW": manner.window > 0, "CAP": manner.softcap > 0,
        "SCALED": manner.key_scale is not None, "SINKS": manner.sinks is not None,
        "TWICE": config.twice and not manner.window,
    }  # fmt: skip


def fold_constants(shape: Shape, config: Config, manner: Attention, value_width: int) -> dict[str, Any]:
    """What `fold` is compiled for."""
    return {
        "HEADS": shape.heads * shape.group, "DV": value_width, "DV_PAD": max(16, power_of_2(value_width)),
        "SPLITS": config.splits, "SINKS": manner.sinks is not None,
    }  # fmt: skip


def supports(spec: Spec) -> tuple[bool, str]:
    """Heads that a tile holds, and pages of the model's dtype or of one that is scaled."""
    fits, reason = served(spec)
    widest = max(int(spec.get(name, 0)) for name in ("key_width", "value_width"))
    if not fits:
        return fits, reason
    if widest > WIDEST:
        return False, f"heads of {widest} elements; kernels take up to {WIDEST}"
    pages = spec.get("kv_dtype", "")
    if pages not in ("", spec["dtype"], *QUANTIZED):
        return False, f"pages of {pages}; kernels take {spec['dtype']}, {', '.join(QUANTIZED)}"
    return True, ""


def register(table: OpTable) -> None:
    """Add both ops."""
    table.register("paged_attention", "triton", paged_attention, supports)
    table.register("packed_attention", "triton", packed_attention, supports)


SHORT = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16", "int8": "i8", "float8_e4m3fn": "fp8e4nv"}
FLAGS = {"k_scale": "SCALED", "v_scale": "SCALED", "sinks": "SINKS", "parts": "SPLIT", "tops": "SPLIT", "sums": "SPLIT"}
"""Arguments that are there where a flag says so."""


def _variant(
    name: str, shape: Shape, widths: tuple[int, int], manner: Attention, dtype: str = "bfloat16", pages: str = ""
) -> Variant:
    """What a launch of this shape compiles; `pages` is their dtype where it is another one."""
    config = select_config(shape)
    chosen = constants(shape, config, manner, widths, 16 if manner.causal else ENDLESS) | {"DOT": DTYPES[dtype]}
    chosen |= {pointer: None for pointer, flag in FLAGS.items() if not chosen[flag]}
    kinds = (
        (("table", "cu_q", "lengths"), "*i32"), (UNSPECIALIZED, "i32"), (("scale", "softcap"), "fp32"),
        (("q", "out", "sinks"), f"*{SHORT[dtype]}"), (("k", "v"), f"*{SHORT[pages or dtype]}"),
        (("k_scale", "v_scale", "parts", "tops", "sums"), "*fp32"),
    )  # fmt: skip
    types = {argument: kind for arguments, kind in kinds for argument in arguments}
    signature = {argument: types.get(argument, "i32:16") for argument in attend.arg_names if argument not in chosen}
    return Variant(f"attend {name}", attend, signature, chosen, config.warps, config.stages)


def _variants() -> Iterator[Variant]:
    """8 key heads of 4 queries each, 128 wide, but where the name says so."""
    plain, every = Attention(1.0), Attention(1.0, 1024, 30.0, torch.empty(0))
    scaled = plain._replace(key_scale=torch.empty(0), value_scale=torch.empty(0))
    few, many = Shape(64, 64, 8, 4, 128, 2, 8192), Shape(2048, 1, 8, 4, 128, 2, 8192)
    whole, usual = few._replace(tokens=256, rows=256), (128, 128)
    for dtype in ("bfloat16", "float16"):
        yield _variant(f"decode {dtype}", few, usual, plain, dtype)
        yield _variant(f"decode whole {dtype}", whole, usual, plain, dtype)
        yield _variant(f"prefill {dtype}", many, usual, plain, dtype)
    yield _variant("decode float32", few._replace(itemsize=4), usual, plain, "float32")
    yield _variant("prefill float32", many._replace(itemsize=4), usual, plain, "float32")
    yield _variant("mixed", many._replace(tokens=64, rows=4), usual, plain)
    yield _variant("decode window, cap, sinks", whole, usual, every)
    yield _variant("decode parts, window, cap, sinks", few, usual, every)
    yield _variant("prefill window, cap, sinks", many, usual, every)
    for pages in QUANTIZED:
        yield _variant(f"decode {pages} pages", few, usual, scaled, pages=pages)
        yield _variant(f"prefill {pages} pages", many, usual, scaled, pages=pages)
    for width, values in ((64, 64), (256, 256), (192, 128)):
        name = f"{width}" if width == values else f"{width} and {values}"
        yield _variant(f"decode {name} wide", few._replace(width=width), (width, values), plain)
        yield _variant(f"prefill {name} wide", many._replace(width=width), (width, values), plain)
    encoder = Shape(4096, 16, 12, 1, 64, 2, 4096)
    yield _variant("encoder 64 wide", encoder, (64, 64), plain._replace(causal=False))
    signature = {"parts": "*fp32", "tops": "*fp32", "sums": "*fp32", "out": "*bf16"}
    for splits in (2, MOST_PARTS):
        folded = fold_constants(few, select_config(few)._replace(splits=splits), plain, 128)
        yield Variant(f"fold {splits}", fold, signature, folded | {"sinks": None})
    folded = fold_constants(few, select_config(few), every, 128)
    yield Variant("fold with sinks", fold, signature | {"sinks": "*bf16"}, folded)


VARIANTS: Sequence[Variant] = tuple(_variants())
