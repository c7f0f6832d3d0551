"""The cases of experts are served by the reference in every dtype, and hold what the kernels must tell apart."""

from __future__ import annotations

from typing import Any

import torch

from llmos.drivers.ops.cases.case import check
from llmos.drivers.ops.cases.experts import TINY, cases
from llmos.drivers.ops.reference_experts import experts

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
