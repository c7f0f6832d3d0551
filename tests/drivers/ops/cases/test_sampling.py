"""The judge of samplers: it lets rounding pass and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from llmos.drivers.ops.cases.case import Call, Case, check
from llmos.drivers.ops.cases.sampling import Setting, cases, judge, sampled
from llmos.drivers.ops.reference_sampling import gumbel, sample

CPU = torch.device("cpu")
TINY = list(cases(tiny=True))


def test_the_reference_passes_its_own_cases_in_every_dtype() -> None:
    for case in TINY:
        for dtype in case.dtypes:
            assert check(case, sample, sample, CPU, dtype).ok, (case.name, dtype)
    assert len(list(cases(tiny=False))) > len(TINY)


@pytest.mark.parametrize("place", range(1, 7))
def test_a_setting_that_is_not_heeded_fails(place: int) -> None:
    off = (1.0, 0, 1.0, 0.0, 7, 7)[place - 1]

    def deaf(*given: Tensor) -> Tensor:
        return sample(*(torch.full_like(each, off) if at == place else each for at, each in enumerate(given)))

    only = {1: Setting(0.3), 2: Setting(top_k=2), 3: Setting(top_p=0.3), 4: Setting(min_p=0.6)}.get(place, Setting())
    rows = [only._replace(counter=at) for at in range(60)]
    assert not check(sampled(50, rows, 1.0), deaf, sample, CPU, "float32").ok


def verdict(case: Case, tokens: list[int], wanted: list[int]) -> Any:
    call = case.make(CPU, torch.float32)
    return judge((torch.tensor(wanted),), (torch.tensor(tokens),), torch.float32, call)


def test_two_tokens_as_good_as_each_other_may_be_taken_for_each_other() -> None:
    call = sampled(8, [Setting()]).make(CPU, torch.float32)
    logits, *settings = call.args
    noise = gumbel(*settings[-2:], 8)
    token, other = (logits + noise)[0].topk(2).indices.tolist()
    behind = float((logits + noise)[0, token] - (logits + noise)[0, other])
    for gap, ok in ((behind, False), (1e-5, True), (1e-3, False)):
        near = logits.clone()
        near[0, other] += behind - gap
        found = judge((torch.tensor([token]),), (torch.tensor([other]),), torch.float32, Call((near, *settings)))
        assert found.ok == ok


def test_no_token_is_no_rounding() -> None:
    case = sampled(8, [Setting(), Setting(0.0)])
    good = sample(*case.make(CPU, torch.float32).args).tolist()
    assert verdict(case, good, good).ok
    for bad in ([-1, good[1]], [8, good[1]], [good[0], -1], [good[0], (good[1] + 1) % 8]):
        assert not verdict(case, bad, good).ok
