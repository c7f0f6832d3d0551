"""The cases of adapters are served by the reference in every dtype, and hold what the kernels must tell apart."""

from __future__ import annotations

from typing import Any

import torch

from llmos.drivers.ops import reference_lora
from llmos.drivers.ops.cases.case import check
from llmos.drivers.ops.cases.lora import TINY, cases
from llmos.drivers.ops.reference_lora import Slots

CPU = torch.device("cpu")


def test_the_reference_passes_its_own_cases() -> None:
    for case in cases(tiny=True):
        call = getattr(reference_lora, case.op)
        for dtype in case.dtypes:
            assert check(case, call, call, CPU, dtype).ok, (case.op, case.name, dtype)


def test_forgotten_slices_and_slots_would_be_seen() -> None:
    def first_only(*given: Any, slices: Any = ()) -> None:
        y, hidden, b, where = given
        rank = b.shape[1]
        columns = slices[0][1] if slices else y.shape[1]
        start = slices[0][0] if slices else 0
        reference_lora.lora_expand(y[:, start : start + columns], hidden[:, :rank], b[:, :, :columns], where)

    seen = {
        case.name for case in cases(tiny=True)
        if case.op == "lora_expand" and not check(case, first_only, reference_lora.lora_expand, CPU, "float32").ok
    }  # fmt: skip
    assert seen == {setting.name for setting in TINY if len(setting.outs) > 1}


def test_cases_mix_banks_orders_and_nobody() -> None:
    found = [case.make(CPU, torch.float32).args[-1] for case in cases(tiny=True)]
    slots = [where for where in found if isinstance(where, Slots)]
    assert any(where.first for where in slots) and any((where.ids < 0).any() for where in slots)
    assert any(where.ids.tolist() != sorted(where.ids.tolist()) for where in slots)
    assert len(found) > len(slots) and len(list(cases(tiny=False))) > len(found)
