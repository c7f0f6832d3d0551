"""The attention kernels give the same however their work is cut, and nothing that they read is theirs to choose."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from slow_cases import slow_but

from llmos.drivers.ops import reference_attention
from llmos.drivers.ops.cases.attention import paged
from llmos.drivers.ops.cases.case import Verdict, check
from llmos.drivers.ops.cases.encoders import packed
from llmos.drivers.ops.triton import attend
from llmos.drivers.ops.triton.attend import Config, packed_attention, paged_attention

CPU = torch.device("cpu")


@st.composite
def counts(draw: st.DrawFn) -> list[tuple[int, int]]:
    rows = draw(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 40)), min_size=1, max_size=4))
    found = [(count, count + before) if count > 1 else (count, before + 1) for count, before in rows]
    return found if any(count for count, _ in found) else [*found, (1, 20)]


CONFIGS = st.builds(
    Config, block=st.sampled_from([16, 32]), tile=st.sampled_from([8, 16, 32]), splits=st.sampled_from([1, 2, 4]),
    twice=st.booleans(), warps=st.just(4), stages=st.just(3),
)  # fmt: skip


PAGED = (paged_attention, reference_attention.paged_attention)


def verdict(case: Any, config: Config, dtype: str = "float32", op: tuple[Any, Any] = PAGED) -> Verdict:
    """What a case gives when its work is cut so, with parts of any length."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attend, "select_config", lambda shape: config)
        patch.setattr(attend, "PART_TOKENS", 1)
        return check(case, *op, CPU, dtype)


CASES = st.builds(
    lambda counts, group, kv_heads, window, softcap, sinks, pages: paged(
        counts, group * kv_heads, kv_heads, 16, 16, window, softcap, sinks, pages
    ),
    counts(), st.integers(1, 5), st.integers(1, 2), st.sampled_from([0, 1, 5, 17]), st.sampled_from([0.0, 4.0]),
    st.booleans(), st.sampled_from(["", "", "int8"]),
)  # fmt: skip


@pytest.mark.slow
@settings(max_examples=12)
@given(CASES, CONFIGS)
def test_however_the_work_is_cut_the_answer_is_the_same(case: Any, config: Config) -> None:
    found = verdict(case, config)
    assert found.ok, (case.name, found)


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(CASES, CONFIGS)
def test_however_the_work_is_cut_the_answer_is_the_same_at_length(case: Any, config: Config) -> None:
    found = verdict(case, config)
    assert found.ok, (case.name, found)


@pytest.mark.parametrize(("splits", "twice"), slow_but([(4, True)], product([1, 4], [False, True])))
def test_windows_caps_and_sinks_in_parts(splits: int, twice: bool) -> None:
    case = paged([(1, 61), (3, 40), (1, 16), (1, 17)], 6, 2, 16, 8, window=18, softcap=3.0, sinks=True)
    for tile in (8, 32):
        found = verdict(case, Config(16, tile, splits, twice, 4, 3))
        assert found.ok, found


@pytest.mark.parametrize("splits", slow_but([1], [1, 2]))
def test_wherever_a_row_ends_in_a_tile_it_sees_all_of_its_keys_and_no_more(splits: int) -> None:
    """Tiles that every query sees are gone over without masks: none too many."""
    config = Config(16, 8, splits, True, 4, 3)
    found = verdict(paged([(3, length) for length in range(3, 20)], 2, 1, 16), config)
    assert found.ok, found
    whole = packed(range(1, 12), 2, 1, 16, 16)
    found = verdict(whole, config, op=(packed_attention, reference_attention.packed_attention))
    assert found.ok, found


def test_parts_of_pages_that_hold_numbers_of_8_bits() -> None:
    for pages in ("int8", "float8_e4m3fn"):
        found = verdict(paged([(1, 61), (3, 40)], 4, 2, 16, pages=pages), Config(16, 8, 4, False, 4, 3), "bfloat16")
        assert found.ok, found


class Watched:
    """A kernel whose launches are noted."""

    def __init__(self, kernel: Any) -> None:
        self.kernel, self.launches = kernel, list[Any]()

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        def launch(*args: Any, **options: Any) -> None:
            numbers = [arg for arg in args if isinstance(arg, int | float)]
            self.launches.append((grid, numbers, options))
            self.kernel[grid](*args, **options)

        return launch


def test_a_launch_depends_on_shapes_alone_and_reads_nothing_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a graph of it serves other lengths, pages and starts."""
    kernels = [Watched(attend.attend), Watched(attend.fold)]
    monkeypatch.setattr(attend, "attend", kernels[0])
    monkeypatch.setattr(attend, "fold", kernels[1])
    steps = [
        ([(1, 250), (1, 3), (1, 0)], 0), ([(3, 200), (0, 250), (0, 9)], 1), ([(1, 1), (2, 249), (0, 40)], 2),
        ([(1, 20), (0, 230), (2, 250)], 3),
    ]  # fmt: skip
    for counts, seed in steps:
        made = paged(counts, 4, 2, 16, seed=seed).make(CPU, torch.float32)
        wanted = reference_attention.paged_attention(*made.args, **made.options)
        with monkeypatch.context() as patch:
            for name in ("tolist", "item", "__bool__", "__int__", "nonzero"):
                patch.setattr(torch.Tensor, name, _refuse)
            answer = paged_attention(*made.args, **made.options)
        assert torch.allclose(answer, wanted, atol=1e-5)
    for kernel in kernels:
        assert len(kernel.launches) == len(steps)
        assert all(launch == kernel.launches[0] for launch in kernel.launches)


def _refuse(*args: Any) -> Any:
    raise AssertionError("a tensor was read back")


def test_a_padded_row_of_a_graph_answers_zeros_and_looks_up_no_page() -> None:
    made = paged([(1, 20), (1, 16)], 4, 2, 16, sinks=True).make(CPU, torch.float32)
    q, k, v, table, starts, lengths, scale = made.args
    lengths[1], table[1] = 0, 1 << 29  # a page that is far outside of memory
    answer = paged_attention(q, k, v, table, starts, lengths, scale)
    assert (answer[1] == 0).all()
    assert answer[0].abs().min() > 0


def test_a_sink_far_above_all_scores_leaves_numbers() -> None:
    made = paged([(1, 40), (2, 33)], 4, 2, 16, sinks=True).make(CPU, torch.float32)
    made.options["sinks"].fill_(300.0)  # 2^(300 / ln 2) is no number of float32
    for splits in (1, 4):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(attend, "select_config", lambda shape, parts=splits: Config(16, 8, parts, False, 4, 3))
            patch.setattr(attend, "PART_TOKENS", 1)
            answer = paged_attention(*made.args, **made.options)
        assert torch.allclose(answer, reference_attention.paged_attention(*made.args, **made.options), atol=1e-6)


def test_a_block_writes_its_own_queries_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a group does not fill a block there are rows left over, which are the next block's."""
    made = paged([(12, 20)], 3, 1, 16).make(CPU, torch.float32)
    monkeypatch.setattr(attend, "select_config", lambda shape: Config(16, 8, 1, False, 4, 3))
    monkeypatch.setattr(attend.Shape, "blocks", lambda shape, block: 1)
    new_empty = torch.Tensor.new_empty

    def filled(like: torch.Tensor, *size: int, **kind: Any) -> torch.Tensor:
        made = new_empty(like, *size, **kind)
        return made.fill_(torch.nan) if made.is_floating_point() else made

    monkeypatch.setattr(torch.Tensor, "new_empty", filled)
    answer = paged_attention(*made.args, **made.options)
    assert answer[:5].isfinite().all() and answer[5:].isnan().all()


def test_scales_of_values_lie_as_they_lie() -> None:
    made = paged([(1, 40), (2, 33)], 4, 2, 16, pages="int8").make(CPU, torch.float32)
    scales = made.options["value_scale"]
    apart = torch.zeros(scales.shape[0], 3, scales.shape[2] + 5)
    view = apart[:, : scales.shape[1], : scales.shape[2]].copy_(scales)
    wanted = paged_attention(*made.args, **made.options)
    assert torch.equal(paged_attention(*made.args, **{**made.options, "value_scale": view}), wanted)
