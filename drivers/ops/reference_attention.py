"""Attention over pages of keys and values, and within packed rows, in plain torch.

| op | arguments | answer |
|---|---|---|
| `paged_attention` | q [T, Hq, D], pages, table, starts, lengths, scale; window, softcap, sinks, scales | [T, Hq, Dv] |
| `packed_attention` | q [T, Hq, D], k [T, Hkv, D], v [T, Hkv, Dv], row starts, scale | [T, Hq, Dv] |
| `write_kv` | k [T, Hkv, D], v [T, Hkv, Dv], pages, slots [T]; scales | nothing; the pages are written |

Pages are `[pages, Hkv, tokens per page, D]`, the last two dimensions dense, with any stride between pages: one layer's
view of a block that holds several. Rows are packed: row r has the queries `cu_q[r]` to `cu_q[r + 1]`.

Pages of int8 or float8_e4m3fn hold quantized heads: a head of one token is its numbers times one float32, kept in
`key_scale` or `value_scale` [pages, Hkv, tokens per page], the last dimension dense, with any stride between pages.
The scale makes the greatest number the dtype's greatest; what was divided by it is rounded to nearest, ties to even.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional as F

LIMITS = {torch.int8: 127.0, torch.float8_e4m3fn: 448.0}
"""The greatest number of each dtype of quantized pages."""


def paged_attention(
    q: Tensor, k_pages: Tensor, v_pages: Tensor, page_table: Tensor, cu_q: Tensor, lengths: Tensor, scale: float,
    window: int = 0, softcap: float = 0.0, sinks: Tensor | None = None, key_scale: Tensor | None = None,
    value_scale: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Causal attention of packed rows, in float32 and rounded once.

    `page_table` int32 [rows, max pages] names the pages of each row in order; `cu_q` int32 [rows + 1]; `lengths` int32
    [rows] counts the tokens of a row with those of this step, which are its last ones and already written. A query at
    i sees keys j <= i, with a `window` only those with i - j < window. `softcap` c makes a score c * tanh(score / c).
    `sinks` [Hq] are scores that take part in the softmax and have no value. Query heads are grouped: Hq / Hkv
    neighbours share a key head. A row of length 0 may have one query, whose answer is 0. The rules are those of
    `eager_attention_forward` in transformers (Llama, Gemma 2, GPT-OSS).
    """
    heads, group = k_pages.shape[1], q.shape[1] // k_pages.shape[1]
    out = q.new_empty(q.shape[0], q.shape[1], v_pages.shape[3])
    starts = cu_q.tolist()
    for row, length in enumerate(lengths.tolist()):
        first, last = starts[row], starts[row + 1]
        if first == last:
            continue
        pages = page_table[row, : -(-length // k_pages.shape[2])].long()
        keys = _gathered(k_pages, key_scale, pages)[:, :length]
        values = _gathered(v_pages, value_scale, pages)[:, :length]
        queries = q[first:last].float().view(last - first, heads, group, -1).permute(1, 2, 0, 3)
        scores = queries @ keys[:, None].transpose(2, 3) * scale
        if softcap:
            scores = torch.tanh(scores / softcap) * softcap
        scores = scores.masked_fill(_hidden(last - first, length, window, q.device), -torch.inf)
        weights = _softmax(scores, sinks)
        out[first:last] = (weights @ values[:, None]).permute(2, 0, 1, 3).flatten(1, 2).to(q.dtype)
    return out


def packed_attention(q: Tensor, k: Tensor, v: Tensor, starts: Tensor, scale: float) -> Tensor:
    """Attention of packed rows, each to all of its own tokens, as an encoder's.

    `starts` int32 [rows + 1]: row r has the tokens `starts[r]` to `starts[r + 1]`, and the last ends where q does.
    """
    out = q.new_empty(q.shape[0], q.shape[1], v.shape[2])
    for first, last in pairwise(starts.tolist()):
        queries, keys, values = (part[first:last].transpose(0, 1)[None] for part in (q, k, v))
        grouped = q.shape[1] != k.shape[1]
        attended = F.scaled_dot_product_attention(queries, keys, values, scale=scale, enable_gqa=grouped)
        out[first:last] = attended[0].transpose(0, 1)
    return out


def write_kv(
    k: Tensor, v: Tensor, k_pages: Tensor, v_pages: Tensor, slots: Tensor, key_scale: Tensor | None = None,
    value_scale: Tensor | None = None,
) -> None:  # fmt: skip
    """Put keys and values into their pages; `slots` int64 [T] is page * tokens per page + place in the page."""
    page_tokens = k_pages.shape[2]
    places = slots // page_tokens, slots % page_tokens
    for given, pages, scale in ((k, k_pages, key_scale), (v, v_pages, value_scale)):
        if scale is not None:
            given, scale[places[0], :, places[1]] = quantize(given, pages.dtype)
        pages[places[0], :, places[1]] = given


def quantize(heads: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Heads [..., D] as numbers of int8 or float8_e4m3fn, and their scales [...] in float32."""
    wide = heads.float()
    scale = wide.abs().amax(-1) * (1.0 / LIMITS[dtype])
    shared = torch.where(scale == 0.0, 1.0, scale)[..., None]
    divided = wide / shared
    return (divided.round() if dtype == torch.int8 else divided).to(dtype), scale


def _gathered(pages: Tensor, scale: Tensor | None, chosen: Tensor) -> Tensor:
    """What some pages hold, [Hkv, tokens, D] in float32."""
    found = pages[chosen].transpose(0, 1).flatten(1, 2).float()
    return found if scale is None else found * scale[chosen].transpose(0, 1).flatten(1)[..., None]


def _hidden(queries: int, length: int, window: int, device: torch.device) -> Tensor:
    """What each of the last `queries` of `length` positions must not see, as [queries, length]."""
    distance = torch.arange(length - queries, length, device=device)[:, None] - torch.arange(length, device=device)
    return (distance < 0) | (distance >= window) if window else distance < 0


def _softmax(scores: Tensor, sinks: Tensor | None) -> Tensor:
    """Over the keys of [Hkv, group, queries, keys]; a sink of its head takes its share away."""
    if sinks is None:
        return torch.softmax(scores, dim=-1)
    column = sinks.float().view(*scores.shape[:2], 1, 1).expand(*scores.shape[:3], 1)
    return torch.softmax(torch.cat([scores, column], dim=-1), dim=-1)[..., :-1]
