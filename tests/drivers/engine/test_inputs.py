"""The inputs of a step as numbers."""

from __future__ import annotations

import pickle

from llmos.drivers.engine.inputs import TABLE_PAGES, UNKNOWN, Prepared, moves_of, prepare
from llmos.drivers.engine.steps import PAGE_TOKENS, Row, RowStep, StepPlan


def test_rows_lie_one_after_the_other() -> None:
    one = Row("a", list(range(20)), pages=[5, 2])
    two = Row("b", [40, 41], pages=[7], drafts=[42])
    made = prepare([RowStep(one, 15, 5, 1), RowStep(two, 1, 2, 2, drafts=1)])
    assert made.ids == [15, 16, 17, 18, 19, 41, 42]
    assert made.positions == [15, 16, 17, 18, 19, 1, 2]
    assert made.kept == [4, 5, 6]
    assert made.slots == [95, 32, 33, 34, 35, 113, 114]
    cut = made.cuts[0]
    assert (cut.starts, cut.lengths) == ([0, 5, 7], [20, 3])
    assert [len(pages) for pages in cut.table] == [TABLE_PAGES] * 2 and cut.table[0][:3] == [5, 2, 0]


def test_a_token_that_only_the_device_knows_has_a_place() -> None:
    row = Row("a", [1, 2, 3], pages=[0], ahead=1)
    assert prepare([RowStep(row, 3, 1, 1)]).ids == [UNKNOWN]


def test_chunks_see_their_own_pages() -> None:
    row = Row("a", list(range(40)), pages=[4, 5, 6])
    cut = prepare([RowStep(row, 10, 30, 1)], [PAGE_TOKENS]).cuts[PAGE_TOKENS]
    assert (cut.starts, cut.lengths) == ([0, 6, 22, 30], [16, 16, 8])
    assert [pages[0] for pages in cut.table] == [4, 5, 6]


def test_it_can_be_told_to_another_process() -> None:
    row = Row("a", [1, 2, 3], pages=[0])
    plan = StepPlan([RowStep(row, 0, 3, 1)], copies=[(1, 2)], preempted=[row])
    made = Prepared(moves_of(plan), prepare(plan.rows))
    assert pickle.loads(pickle.dumps(made)) == made
    assert made.moves.copies == [(1, 2)] and not made.moves.rows and not made.moves.preempted
