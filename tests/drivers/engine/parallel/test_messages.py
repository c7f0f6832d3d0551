"""What goes between the host process and its ranks arrives as it was, plain and typed."""

from __future__ import annotations

import pickle

import pytest
from llmos.drivers.engine.inputs import Prepared, moves_of, prepare
from llmos.drivers.engine.parallel.messages import Failed, Step
from llmos.drivers.engine.steps import Row, RowStep, StepPlan
from llmos.syscalls.errors import NoDeviceMemory


@pytest.mark.parametrize("chunks", [(), (32,)])
def test_a_step_arrives_as_plain_numbers_without_the_rows_it_is_for(chunks: tuple[int, ...]) -> None:
    row = Row("r", list(range(50)), pages=[3, 1, 2, 0])
    plan = StepPlan([RowStep(row, 40, 10, 1)], swap_out=[(1, 2)], swap_in=[(2, 1)], copies=[(0, 4)])
    step = Step(7, Prepared(moves_of(plan), prepare(plan.rows, chunks)))
    arrived = pickle.loads(pickle.dumps(step))
    assert arrived == step
    assert arrived.prepared.moves.rows == ()
    assert (arrived.prepared.moves.swap_out, arrived.prepared.moves.copies) == ([(1, 2)], [(0, 4)])
    assert arrived.prepared.inputs.ids == list(range(40, 50))
    assert arrived.prepared.inputs.slots[-2:] == [0 * 16 + 0, 0 * 16 + 1]


def test_an_error_arrives_with_its_type_and_fields() -> None:
    arrived = pickle.loads(pickle.dumps(Failed(1, NoDeviceMemory("too large", needed=3, free=2))))
    assert isinstance(arrived.error, NoDeviceMemory)
    assert (str(arrived.error), arrived.error.needed, arrived.error.free) == ("too large", 3, 2)
