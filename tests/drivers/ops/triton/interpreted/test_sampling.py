"""Sampling in Triton, beside the contract of all implementations (`test_contract`): long rows, and one row alone."""

from __future__ import annotations

import math

import pytest
import torch
import triton
import triton.language as tl
from hypothesis import given, settings
from hypothesis import strategies as st

from llmos.drivers.ops.cases.case import check, dtype_of
from llmos.drivers.ops.cases.sampling import USUAL, Setting, sampled, tied
from llmos.drivers.ops.philox import MASK, philox
from llmos.drivers.ops.reference_sampling import floors, gumbel, sample
from llmos.drivers.ops.table import OpTable
from llmos.drivers.ops.triton import sampling
from llmos.syscalls.errors import BadArgument, NotSupported

CPU = torch.device("cpu")
SETTING = st.builds(
    Setting, temperature=st.sampled_from([0.0, 0.2, 1.0, 3.0]), top_k=st.integers(0, 30),
    top_p=st.sampled_from([1.0, 0.99, 0.5, 0.0]), min_p=st.sampled_from([0.0, 0.05, 1.0]),
    seed=st.integers(-(2**63), 2**63 - 1), counter=st.integers(0, 2**40),
)  # fmt: skip


@triton.jit
def _words(out, seed, counter, COUNT: tl.constexpr):
    group = tl.arange(0, COUNT)
    at = tl.load(counter)
    stream = tl.full((), 3, tl.int32)
    a, b, c, d = tl.philox(tl.load(seed), at.to(tl.int32), (at >> 32).to(tl.int32), stream, group)
    words = tl.interleave(tl.interleave(a, c), tl.interleave(b, d))
    tl.store(out + tl.arange(0, 4 * COUNT), words.to(tl.int64))


def test_the_words_are_those_of_the_reference() -> None:
    for seed, counter in ((0, 0), (2**63 - 1, 2**40 + 3), (-7, 2**63 - 1)):
        out = torch.empty(32, dtype=torch.int64)
        _words[(1,)](out, torch.tensor([seed]), torch.tensor([counter]), COUNT=8)
        key = seed & MASK, seed >> 32 & MASK
        wanted = [philox((counter & MASK, counter >> 32 & MASK, 3, group), key) for group in range(8)]
        assert out.tolist() == [word for words in wanted for word in words]


@pytest.mark.slow
@settings(max_examples=8)
@given(st.lists(SETTING, min_size=1, max_size=3), st.integers(1, 600), st.sampled_from([0.1, 3.0]), st.booleans())
def test_any_settings(rows: list[Setting], size: int, spread: float, ties: bool) -> None:
    case = tied(size, rows, seed=size) if ties else sampled(size, rows, spread, seed=size)
    verdict = check(case, sampling.sample, sample, CPU, "float32")
    assert verdict.ok, verdict


@pytest.mark.slow
def test_what_the_front_does_not_hold_is_looked_for_in_the_whole_row() -> None:
    size = 9000
    assert sampling.select_config(size) == (4096, 3, 256)
    rows = [
        Setting(1.0, 3000), Setting(1.0, 0, 0.9), Setting(1.0, 3000, 0.9), Setting(1.0, 3000, 0.01),
        Setting(1.0, 9, 0.5),
    ]  # fmt: skip
    verdict = check(sampled(size, rows, spread=0.5), sampling.sample, sample, CPU, "float32")
    assert verdict.ok, verdict


@pytest.mark.slow
def test_the_limit_holds_as_many_tokens_as_the_filters_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was allocated last are the limits."""
    seen: list[torch.Tensor] = []
    empty = torch.empty

    def remembered(*shape: int, **options: object) -> torch.Tensor:
        made = empty(*shape, **options)  # type: ignore[call-overload]
        seen.append(made)
        return made  # type: ignore[no-any-return]

    monkeypatch.setattr(torch, "empty", remembered)
    row = torch.randn(1, 5000, generator=torch.Generator().manual_seed(0))
    for setting in (
        Setting(0.5, 1), Setting(0.5, 77), Setting(0.5, 1500), Setting(0.5), Setting(0.5, 0, 0.4),
        Setting(0.5, 20, 0.4),
        Setting(0.5, 0, 1.0, 0.3), Setting(0.5, 5, 1.0, 0.3), Setting(0.5, 0, 0.1, 0.01),
    ):  # fmt: skip
        call = sampled(5000, [setting]).make(CPU, torch.float32)
        sampling.sample(row, *call.args[1:])
        (limit,) = seen[-1].view(torch.float32).tolist()
        scores = (row - row.max()) * 2.0
        kept = int((scores >= floors(scores, *call.args[2:5])).sum())
        assert int((-scores <= limit).sum()) == kept and (setting.top_k in (0, 5, 20) or kept == setting.top_k)


def test_chunks_out_of_reach_are_passed_over_and_never_win() -> None:
    noise = gumbel(torch.arange(40), torch.arange(40), 4000)
    assert float(noise.max() - noise.min()) < float(sampling.REACH.value)
    logits = torch.full((4, 600), -60.0)
    logits[:, 300], logits[:, 550] = 0.0, -1.0
    call = sampled(600, [Setting(counter=row) for row in range(4)]).make(CPU, torch.float32)
    found = sampling.sample(logits, *call.args[1:])
    assert torch.equal(found, sample(logits, *call.args[1:]))


@pytest.mark.slow
def test_a_row_depends_on_itself_alone() -> None:
    call = sampled(300, USUAL).make(CPU, dtype_of("float32"))
    together = sampling.sample(*call.args)
    for row in (2, 4):
        assert sampling.sample(*(each[row : row + 1] for each in call.args)).tolist() == [int(together[row])]


def test_rows_may_lie_apart() -> None:
    call = sampled(40, USUAL[:3]).make(CPU, torch.float32)
    wide = torch.cat([call.args[0], torch.full((3, 7), math.inf)], dim=1)
    assert torch.equal(sampling.sample(wide[:, :40], *call.args[1:]), sampling.sample(*call.args))


@pytest.mark.filterwarnings("ignore:overflow encountered")
def test_the_coolest_temperature_is_almost_greedy() -> None:
    call = sampled(4, [Setting(1e-45)]).make(CPU, torch.float32)
    assert sampling.sample(torch.tensor([[1e38, -1e38, 2e38, 0.0]]), *call.args[1:]).tolist() == [2]


@pytest.mark.slow
def test_tokens_come_as_often_as_softmax_says() -> None:
    draws, size = 3000, 12
    row = torch.randn(size, generator=torch.Generator().manual_seed(1))
    call = sampled(size, [Setting(counter=at) for at in range(draws)]).make(CPU, torch.float32)
    tokens = sampling.sample(row.expand(draws, size), *call.args[1:])
    due = torch.softmax(row.double(), dim=-1) * draws
    statistic = float(((torch.bincount(tokens, minlength=size) - due) ** 2 / due).sum())
    assert statistic < size - 1 + 5 * math.sqrt(2 * (size - 1))


def test_what_does_not_fit_together_is_refused() -> None:
    args = sampled(8, USUAL).make(CPU, torch.float32).args
    for place, wrong in ((0, args[0].T), (1, args[1].double()), (2, args[2][:3]), (5, args[5].int())):
        with pytest.raises(BadArgument):
            sampling.sample(*(wrong if at == place else each for at, each in enumerate(args)))
    assert sampling.sample(*(each[:0] for each in args)).shape == (0,)
    with pytest.raises(NotSupported, match="no gradient"):
        sampling.sample(args[0].requires_grad_(), *args[1:])


def test_it_serves_what_kernels_serve() -> None:
    table = OpTable()
    sampling.register(table)
    assert table.choose("sample", {"device": "cpu", "dtype": "bfloat16"}).implementation.name == "triton"
