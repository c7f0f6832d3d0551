"""Cases of every op at drawn shapes, for the contract that all implementations are held to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from hypothesis import strategies as st

from llmos.drivers.ops.cases import attention, encoders, experts, layers, linear, lora, quantized, sampling
from llmos.drivers.ops.cases.case import Case, check
from llmos.drivers.ops.reference_experts import Gate
from llmos.drivers.ops.table import OpTable

NATURAL = st.integers(1, 9)
WIDTHS = st.integers(1, 20).map(lambda half: 2 * half)
ROWS = st.lists(NATURAL, min_size=1, max_size=4).map(tuple)
SEEDS = st.integers(0, 1000)
FLAGS = st.booleans()
PAGES = st.sampled_from(["", "", "int8", "float8_e4m3fn"])
COUNTS = st.lists(
    st.tuples(st.integers(0, 6), st.integers(0, 40)).map(lambda row: (row[0], sum(row))), min_size=1, max_size=4
).filter(lambda rows: any(count for count, _ in rows))
"""Of each row its queries, and its tokens with them."""


SETTINGS = st.builds(
    sampling.Setting, st.sampled_from([0.0, 0.3, 1.0, 2.0]), st.integers(0, 20), st.sampled_from([1.0, 0.9, 0.1]),
    st.sampled_from([0.0, 0.05]), st.integers(-(2**63), 2**63 - 1), st.integers(0, 2**40),
)


def paged(
    counts: list[tuple[int, int]], kv_heads: int, group: int, width: int, value_width: int, window: int, capped: bool,
    sinks: bool, pages: str, seed: int,
) -> Case:  # fmt: skip
    cap = 5.0 if capped else 0.0
    return attention.paged(counts, kv_heads * group, kv_heads, width, value_width, window, cap, sinks, pages, seed)


def written(
    op: str, tokens: int, kv_heads: int, group: int, width: int, value_width: int, part: int, pages: str, seed: int
) -> Case:
    turned = max(2, width * part // 4 // 2 * 2)
    return attention.written(op, tokens, kv_heads * group, kv_heads, width, value_width, turned, pages, seed)


def adapted(
    op: str, ids: list[int], ins: int, outs: list[int], rank: int, first: int, skipped: int, seed: int
) -> Case:
    setting = lora.Setting("drawn", len(ids), ins, tuple(outs), rank, tuple(ids), first, skipped=skipped)
    make = lora.Shrink(setting, seed) if op == "lora_shrink" else lora.Expand(setting, seed)
    return Case(op, f"{setting}", {"where": "slots"}, make)


def chosen(tokens: int, count: int, most: int, width: int, inner: int, act: str, laid: bool, biased: bool) -> Case:
    setting = experts.Setting("drawn", tokens, count, min(most, count), width, inner, Gate(act), laid, biased)
    known = next(iter(experts.cases(tiny=True)))
    return Case("experts", f"{setting}", known.spec, experts.Experts(setting, 0), judge=known.judge)


def normed(op: str) -> st.SearchStrategy[Case]:
    make = layers.rms if op.endswith("rms_norm") else layers.layer
    return st.builds(make, NATURAL, st.integers(8, 200), st.just(op.startswith("add")), FLAGS, FLAGS, SEEDS)


def narrowed(op: str) -> st.SearchStrategy[Case]:
    return st.builds(layers.narrowed, NATURAL, st.integers(8, 200), st.just(op.startswith("add")), FLAGS, FLAGS, SEEDS)


def in_pages(op: str) -> st.SearchStrategy[Case]:
    parts = (NATURAL, st.integers(1, 3), st.integers(1, 3), WIDTHS, WIDTHS, st.integers(1, 4), PAGES, SEEDS)
    return st.builds(written, st.just(op), *parts)


def of_adapters(op: str) -> st.SearchStrategy[Case]:
    ids = st.lists(st.integers(-1, 8), min_size=1, max_size=6)
    outs = st.lists(st.integers(1, 40), min_size=1, max_size=3)
    small = st.integers(0, 3)
    return st.builds(adapted, st.just(op), ids, st.integers(1, 80), outs, NATURAL, small, small, SEEDS)


SHAPES: Mapping[str, st.SearchStrategy[Case]] = {
    "add": st.builds(lambda rows, width, seed: layers.summed((rows, width), seed), NATURAL, st.integers(1, 200), SEEDS),
    **{op: normed(op) for op in ("rms_norm", "add_rms_norm", "layer_norm", "add_layer_norm")},
    **{op: narrowed(op) for op in ("rms_norm_float8", "add_rms_norm_float8")},
    **{
        op: st.builds(layers.gated, st.just(op), NATURAL, st.integers(1, 200), SEEDS)
        for op in ("silu_mul", "gelu_mul", "gelu_tanh_mul")
    },
    **{op: in_pages(op) for op in ("write_kv", "rope_write")},
    "rope": st.builds(
        lambda tokens, heads, kv_heads, half, rotary, merged, seed: layers.turned(
            tokens, heads, kv_heads, 2 * half, 2 * min(half, rotary), merged, seed
        ),
        NATURAL, NATURAL, st.integers(1, 3), NATURAL, NATURAL, FLAGS, SEEDS,
    ),
    "paged_attention": st.builds(
        paged, COUNTS, st.integers(1, 2), st.integers(1, 4), WIDTHS, WIDTHS, st.integers(0, 12), FLAGS, FLAGS, PAGES,
        SEEDS,
    ),
    "packed_attention": st.builds(
        lambda rows, kv_heads, group, width, value_width, seed: encoders.packed(
            rows, kv_heads * group, kv_heads, width, value_width, seed
        ),
        ROWS, st.integers(1, 3), st.integers(1, 3), WIDTHS, WIDTHS, SEEDS,
    ),
    "pool_states": st.builds(
        encoders.pooled, rows=ROWS, width=st.integers(1, 33), how=st.sampled_from(["mean", "cls", "last"]),
        left=FLAGS, seed=SEEDS,
    ),
    "linear": st.builds(
        linear.linear, rows=NATURAL, ins=st.integers(1, 70), bias=FLAGS, seed=SEEDS,
        outs=st.lists(st.integers(1, 40), min_size=1, max_size=3).map(tuple),
    ),
    "quantized_linear": st.builds(
        quantized.quantized, st.sampled_from(quantized.SCHEMES), rows=NATURAL, ins=st.integers(1, 300), bias=FLAGS,
        outs=st.lists(st.integers(1, 40), min_size=1, max_size=3).map(tuple),
        activations=st.sampled_from(["model", "int8"]), seed=SEEDS,
    ),
    **{op: of_adapters(op) for op in ("lora_shrink", "lora_expand")},
    "sample": st.builds(
        sampling.sampled, st.integers(1, 300), st.lists(SETTINGS, min_size=1, max_size=4),
        st.sampled_from([0.5, 3.0, 10.0]), SEEDS,
    ),
    "experts": st.builds(
        chosen, NATURAL, NATURAL, st.integers(1, 3), st.integers(1, 40), st.integers(1, 40),
        st.sampled_from(["silu", "gelu", "gelu_tanh"]), FLAGS, FLAGS,
    ),
}  # fmt: skip

UNDRAWN = {"replay"}
"""Ops whose arguments have no shapes of their own."""


def wrong(table: OpTable, case: Case, names: tuple[str, ...], device: str = "cpu") -> Iterator[str]:
    """What implementations of a table get wrong in a case, of those that say that they serve it."""
    reference = table.implementation(case.op, "torch").call
    for name in names:
        chosen = table.implementation(case.op, name)
        for dtype in case.dtypes:
            if chosen.supports(case.asked(torch.device(device), dtype))[0]:
                verdict = check(case, chosen.call, reference, torch.device(device), dtype)
                if not verdict.ok:
                    yield f"{case.op} by {name} in {dtype}, {case.name}: {verdict}"
