"""Attention over pages against SDPA on keys and values that lie in one piece: G9, G10, G11."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from llmos.drivers.ops.table import OpTable
from torch import Tensor
from torch.nn import functional as F

from .clock import copies, seconds
from .setting import SHAPES, Found, Setting, Shape
from .tables import op_table

PAGE = 16


def run(setting: Setting) -> Iterator[Found]:
    shape, table = SHAPES[setting.large], op_table(setting.device)
    for rows, length in ((64, 2048), (1, 32_768)) if not setting.tiny else ((3, 40),):
        yield {f"decode {rows} x {length}": measured(setting, table, shape, rows, 1, length)}
    for length in (4096,) if not setting.tiny else (48,):
        yield {f"prefill {length}": measured(setting, table, shape, 1, length, length)}
    mixed = (63, 2048, 512) if not setting.tiny else (2, 40, 24)
    yield {f"{mixed[0]} x {mixed[1]} and a prompt of {mixed[2]}": measured_mixed(setting, table, shape, *mixed)}


def pages(setting: Setting, shape: Shape, lengths: list[int], starts: list[int]) -> tuple[Any, ...]:
    """Arguments of `paged_attention` after q: random pages in shuffled order."""
    device, dtype = setting.device, torch.bfloat16
    counts = [-(-length // PAGE) for length in lengths]
    order = torch.randperm(sum(counts), device=device).to(torch.int32)
    table = torch.zeros(len(lengths), max(counts), dtype=torch.int32, device=device)
    for row, (count, own) in enumerate(zip(counts, order.split(counts), strict=True)):
        table[row, :count] = own
    keys, values = (
        torch.randn(sum(counts), shape.kv_heads, PAGE, shape.width, device=device, dtype=dtype) for _ in range(2)
    )
    said = [torch.tensor(each, dtype=torch.int32, device=device) for each in (starts, lengths)]
    return keys, values, table, *said, shape.width**-0.5


def implementations(table: OpTable, setting: Setting, shape: Shape) -> Mapping[str, Callable[..., Tensor]]:
    spec = {
        "device": setting.device, "dtype": "bfloat16", "key_width": shape.width, "value_width": shape.width,
        "page_tokens": PAGE,
    }  # fmt: skip
    every = {name: table.implementation("paged_attention", name) for name in table.names("paged_attention")}
    serving = {name: each.call for name, each in every.items() if each.supports(spec)[0]}
    return {name: call for name, call in serving.items() if name != "torch" or setting.tiny}


def measured(setting: Setting, table: OpTable, shape: Shape, rows: int, queries: int, length: int) -> Found:
    """All rows have as many queries and are as long."""
    device = setting.device
    size = 4 * rows * length * shape.kv_heads * shape.width
    count = copies(size, device) if queries == 1 else 1
    starts = [queries * row for row in range(rows + 1)]
    given = [pages(setting, shape, [length] * rows, starts) for _ in range(count)]
    q = torch.randn(rows * queries, shape.heads, shape.width, device=device, dtype=torch.bfloat16)
    found: dict[str, float] = {}
    for name, call in implementations(table, setting, shape).items():
        found[name] = seconds([lambda c=call, g=each: c(q, *g) for each in given], device)
    del given
    found["sdpa"] = contiguous(setting, shape, rows, queries, length, count)
    pairs = rows * queries * (length - (queries - 1) / 2)
    return {"seconds": found, "kv_bytes": size, "flops": 4 * pairs * shape.heads * shape.width}


def contiguous(setting: Setting, shape: Shape, rows: int, queries: int, length: int, count: int) -> float:
    """SDPA's best: heads grouped by itself, or, of single queries, the group given as queries of one head."""
    device, group = setting.device, shape.heads // shape.kv_heads
    kv = [
        [torch.randn(rows, shape.kv_heads, length, shape.width, device=device).bfloat16() for _ in range(2)]
        for _ in range(count)
    ]
    q = torch.randn(rows, shape.heads, queries, shape.width, device=device).bfloat16()
    attend, causal = F.scaled_dot_product_attention, queries > 1
    ways = [[lambda k=k, v=v: attend(q, k, v, is_causal=causal, enable_gqa=True) for k, v in kv]]
    if not causal:
        as_queries = q.view(rows, shape.kv_heads, group, shape.width)
        ways.append([lambda k=k, v=v: attend(as_queries, k, v) for k, v in kv])
    return min(seconds(way, device) for way in ways)


def measured_mixed(
    setting: Setting, table: OpTable, shape: Shape, rows: int, length: int, prompt: int
) -> Found:
    """Rows that decode beside one that begins: a step as continuous batching makes them."""
    starts = [*range(rows + 1), rows + prompt]
    given = pages(setting, shape, [length] * rows + [prompt], starts)
    q = torch.randn(starts[-1], shape.heads, shape.width, device=setting.device, dtype=torch.bfloat16)
    found = {
        name: seconds([lambda c=call: c(q, *given)], setting.device)
        for name, call in implementations(table, setting, shape).items()
    }
    return {"seconds": found, "kv_bytes": 4 * (rows * length + prompt) * shape.kv_heads * shape.width}
