"""Plans add up."""

from __future__ import annotations

from llmos.drivers.engine.steps import Row, RowStep, StepPlan


def test_a_plan_counts_the_tokens_that_go_through_the_model() -> None:
    rows = [Row("a", [1, 2, 3]), Row("b", [4])]
    assert StepPlan([RowStep(rows[0], 0, 3, 1), RowStep(rows[1], 0, 1, 1)]).tokens == 4
    assert StepPlan().tokens == 0


def test_rows_with_the_same_content_are_different_rows() -> None:
    assert Row("a", [1]) != Row("a", [1])
    assert len({Row("a", [1]), Row("a", [1])}) == 2
