"""The cases of experts are served by the reference in every dtype, and hold what the kernels must tell apart."""

from __future__ import annotations

from typing import Any

import torch

from llmos.drivers.ops.cases.case import Call, Case, check
from llmos.drivers.ops.cases.experts import TINY, Experts, Setting, cases, judged, terms
from llmos.drivers.ops.reference_experts import Gate, experts

CPU = torch.device("cpu")


def test_the_reference_passes_its_own_cases() -> None:
    for case in cases(tiny=True):
        for dtype in case.dtypes:
            verdict = check(case, experts, experts, CPU, dtype)
            assert verdict.ok, (case.name, dtype, verdict)


def test_forgotten_biases_would_be_seen() -> None:
    def unbiased(*given: Any) -> Any:
        return experts(*given[:6])

    seen = {case.name for case in cases(tiny=True) if not check(case, unbiased, experts, CPU, "bfloat16").ok}
    assert seen == {setting.name for setting in TINY if setting.biases}


def test_cases_leave_experts_without_tokens_and_choose_some_that_are_not_here() -> None:
    chosen = [(setting, case.make(CPU, torch.float32).args[3]) for setting, case in zip(TINY, cases(True), strict=True)]
    assert any(len(ids.unique()) < setting.experts for setting, ids in chosen)
    assert any(len(ids.unique()) == 1 and ids.numel() > 16 for _, ids in chosen)
    assert any(bool(((ids < 0) | (ids >= setting.experts)).any()) for setting, ids in chosen)
    assert any(not case.make(CPU, torch.float32).args[1].is_contiguous() for case in cases(True))
    assert len(list(cases(False))) > len(TINY)


def test_what_cancels_out_is_judged_by_what_it_was_made_of() -> None:
    """Two experts that are each other's opposite: all that is left is what was rounded on the way."""
    x, stack = torch.tensor([[3.0, 2.0]]), torch.tensor([[[1.0, 2.0], [0.5, 1.0]]]).expand(2, 2, 2)
    down = torch.tensor([[[5.0], [1.0]], [[-5.0], [-1.0]]])
    call = Call((x, stack, down, torch.tensor([[0, 1]]), torch.tensor([[0.5, 0.5]]), Gate(), None, None))
    size = terms(call)
    hidden = float(torch.nn.functional.silu(torch.tensor(7.0)) * 3.5)
    spread = float(torch.nn.functional.silu(torch.tensor(7.0 + 5.0)) * (3.5 + 2.5))
    wanted = (0.5 * (5 * hidden) ** 2 + 0.5 * (5 * spread) ** 2) ** 0.5
    assert abs(float(size[0, 0]) - wanted) < 1e-3
    expected = (experts(*call.args),)
    assert float(expected[0].abs().max()) == 0.0
    assert judged(expected, (expected[0] + 0.01 * size,), torch.bfloat16, call).ok
    assert not judged(expected, (expected[0] + 0.01 * size,), torch.float32, call).ok
    assert not judged(expected, (expected[0] + 0.1 * size,), torch.bfloat16, call).ok
    assert not judged(expected, (expected[0] * torch.nan,), torch.bfloat16, call).ok


def test_narrow_experts_are_still_told_apart() -> None:
    """A wrong weight, a neighbour's expert: seen in most of them."""

    def reweighted(*given: Any) -> Any:
        return experts(*given[:4], given[4] * 1.2, *given[5:])

    def astray(*given: Any) -> Any:
        return experts(*given[:3], (given[3] + 1) % given[2].shape[0], *given[4:])

    for wrong, least in ((reweighted, 0.75), (astray, 0.75)):
        seen = 0
        for seed in range(40):
            narrow = Experts(Setting("narrow", 2, 4, 2, 2 + seed % 3, 1 + seed % 2), seed)
            seen += not check(Case("experts", "narrow", {}, narrow, judge=judged), wrong, experts, CPU, "bfloat16").ok
        assert seen >= least * 40, (wrong.__name__, seen)
