"""The cases of attention and page writes pass with their reference, and find what is off by one place."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from llmos.drivers.ops import reference_attention, reference_layers
from llmos.drivers.ops.cases.attention import cases, written
from llmos.drivers.ops.cases.case import check

CPU = torch.device("cpu")
TINY = list(cases(tiny=True))


def reference(op: str) -> Any:
    return getattr(reference_attention, op, None) or getattr(reference_layers, op)


def test_the_reference_passes_its_own_cases_in_every_dtype() -> None:
    for case in TINY:
        for dtype in case.dtypes:
            verdict = check(case, reference(case.op), reference(case.op), CPU, dtype)
            assert verdict.ok, (case.op, case.name, dtype, verdict)
    assert len({(case.op, case.name) for case in cases(tiny=False)}) == len(list(cases(tiny=False)))


def attended(change: Any) -> Any:
    """`paged_attention` whose arguments are changed first."""
    names = ("q", "k_pages", "v_pages", "page_table", "cu_q", "lengths", "scale")

    def run(*args: Any, **options: Any) -> Any:
        given = dict(zip(names, args, strict=True)) | options
        return reference_attention.paged_attention(**{**given, **change(given)})

    return run


MISTAKES = {
    "a window one longer": lambda g: {"window": g["window"] + 1 if g["window"] else 0},
    "a window one shorter": lambda g: {"window": g["window"] - 1 if g["window"] else 0},
    "a row one shorter": lambda g: {"lengths": (g["lengths"] - 1).clamp(min=1)},
    "a row one longer": lambda g: {"lengths": g["lengths"] + 1},
    "the next page": lambda g: {"page_table": g["page_table"].roll(1, 1)},
    "the next head": lambda g: {"k_pages": g["k_pages"].roll(1, 1)},
    "the next query head": lambda g: {"q": g["q"].roll(1, 1)},
    "the next value head": lambda g: {"v_pages": g["v_pages"].roll(1, 1)},
    "the next place of a page": lambda g: {"k_pages": g["k_pages"].roll(1, 2)},
    "no cap": lambda g: {"softcap": 0.0},
    "no sinks": lambda g: {"sinks": None},
    "scales of other heads": lambda g: {} if g.get("key_scale") is None else {"key_scale": g["key_scale"].roll(1, 1)},
    "scales of keys for values": lambda g: {} if g.get("key_scale") is None else {"value_scale": g["key_scale"]},
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_of_one_place_is_found(mistake: str) -> None:
    wrong = attended(MISTAKES[mistake])
    mine = [case for case in TINY if case.op == "paged_attention"]
    assert any(not check(case, wrong, reference(case.op), CPU, "bfloat16").ok for case in mine)


@pytest.mark.parametrize("pages", ["", "int8", "float8_e4m3fn"])
def test_a_write_that_goes_elsewhere_or_is_off_by_more_than_a_step_is_found(pages: str) -> None:
    case = written("write_kv", 5, 2, 2, 24, 16, pages=pages)

    def moved(k: Any, v: Any, k_pages: Any, v_pages: Any, slots: Any, *scales: Any) -> None:
        reference_attention.write_kv(k, v, k_pages, v_pages, slots + 1, *scales)

    def louder(k: Any, *rest: Any) -> None:
        reference_attention.write_kv(k * 1.05, *rest)

    def idle(*args: Any) -> None: ...

    for wrong in (moved, louder, idle):
        assert not check(case, wrong, reference("write_kv"), CPU, "float32").ok
