"""Rows of adapters: sorted, grouped without losing a token, and found again by the number of tokens."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmos.drivers.engine.lora.layout import (
    BANK_SLOTS, BASE, AdapterStep, Group, Layout, Misplaced, by_bank, grouped, sorted_by_adapter,
)  # fmt: skip
from llmos.drivers.engine.steps import Row, RowStep, StepPlan

MIXES = st.lists(st.tuples(st.integers(BASE, 2 * BANK_SLOTS), st.integers(1, 4), st.integers(0, 2)), min_size=1)


def rows(*mix: tuple[int, int, int]) -> list[RowStep]:
    """Of each: slot, tokens, wanted logits."""
    made = [Row(str(at), [1] * count, adapter=slot) for at, (slot, count, _) in enumerate(mix)]
    return [RowStep(row, 0, count, logits) for row, (_, count, logits) in zip(made, mix, strict=True)]


@given(MIXES)
def test_each_token_is_in_the_group_of_its_adapter(mix: list[tuple[int, int, int]]) -> None:
    given = rows(*mix)
    plan = sorted_by_adapter(StepPlan(given))
    assert sorted(map(id, plan.rows)) == sorted(map(id, given))
    total, groups = grouped(plan.rows, lambda step: step.count)
    owners = [BASE] * total
    for slot, start, end in groups:
        owners[start:end] = [slot] * (end - start)
    assert owners == [step.row.adapter for step in plan.rows for _ in range(step.count)]
    found = [
        (bank * BANK_SLOTS + place, start, end)
        for bank, segments in by_bank(groups)
        for place, start, end in segments.table.tolist()
    ]
    assert found == [tuple(group) for group in groups]


@given(MIXES)
def test_rows_of_one_adapter_keep_their_order(mix: list[tuple[int, int, int]]) -> None:
    given = rows(*mix)
    made = sorted_by_adapter(StepPlan(given)).rows
    for slot in {step.row.adapter for step in given}:
        assert [step for step in made if step.row.adapter == slot] == [s for s in given if s.row.adapter == slot]


def test_a_plan_without_adapters_is_left_alone() -> None:
    plan = StepPlan(rows((BASE, 2, 1), (BASE, 1, 1)))
    assert sorted_by_adapter(plan) is plan


def test_layers_find_their_tokens_by_number() -> None:
    step = AdapterStep()
    step.set_rows(rows((BASE, 1, 1), (0, 3, 0), (2, 2, 1), (2, 1, 1)))
    assert step.active
    assert step.layout(7).groups == (Group(0, 1, 4), Group(2, 4, 7))
    assert step.layout(3).groups == (Group(2, 1, 3),)
    with pytest.raises(Misplaced, match="given 5 tokens in a step of 7"):
        step.layout(5)
    step.set_rows(rows((BASE, 1, 1)))
    assert not step.active


def test_one_adapter_may_have_any_number_of_tokens() -> None:
    step = AdapterStep()
    step.set_whole(BANK_SLOTS + 1)
    for tokens in (1, 2, 70):
        (bank, segments), = step.layout(tokens).banks
        assert (bank, segments.table[0, :2].tolist()) == (1, [1, 0])


def test_what_stays_the_same_is_made_once_but_steps_are_counted() -> None:
    step = AdapterStep()
    step.set_rows(rows((0, 2, 1)))
    made, number = step.packed, step.number
    step.set_rows(rows((0, 1, 1), (0, 1, 1)))
    assert (step.packed is made, step.number) == (True, number + 1)
    step.set_layouts(Layout(2, (Group(1, 0, 2),)), Layout(2))
    assert step.packed.groups == (Group(1, 0, 2),)
