"""What goes between the host process and its ranks arrives as it was, plain and typed."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmos.drivers.contract import LoadSettings, ModelSource, SourceFile
from llmos.drivers.engine.inputs import Prepared, moves_of, prepare
from llmos.drivers.engine.parallel import coding
from llmos.drivers.engine.parallel.messages import (
    Beat, Broken, Drop, End, Failed, Go, Here, Join, Joined, Load, Meet, Order, Read, Said, Step,
)  # fmt: skip
from llmos.drivers.engine.steps import Row, RowStep, StepPlan
from llmos.syscalls.errors import NoDeviceMemory

FILE = SourceFile("model.safetensors", Path("/models/a/model.safetensors"), 10, 3)
SOURCE = ModelSource("/models/a", "v1", [FILE], {"parameters": 7}, ModelSource("/models/d", "v2", [FILE]))
ORDERS: list[Order] = [
    Join(1, 2, "module:parts", "cpu0", 1, {"ranks": 2, "gpus": [0, 1], "share": 0.5}), Meet("/tmp/file", 2.5),
    Load(3, SOURCE, LoadSettings("bfloat16", max_context=128, quant={"bits": 4}), 40),
    Load(4, ModelSource("/models/b", "", []), LoadSettings(), 1), Go(3), Drop(3), End(),
    Step(2, Prepared(StepPlan([], [], [], [], [], [], []), prepare([RowStep(Row("r", [1, 2], pages=[0]), 0, 2, 1)]))),
]  # fmt: skip
SAYS: list[Said] = [Joined(), Read(3), Here(3, 1 << 40), Broken("it is \"so\""), Beat(12)]


@pytest.mark.parametrize("message", ORDERS, ids=lambda message: type(message).__name__)
def test_an_order_arrives_as_it_was(message: Order) -> None:
    assert coding.order(coding.encode(message)) == message


@pytest.mark.parametrize("message", SAYS, ids=lambda message: type(message).__name__)
def test_what_is_said_arrives_as_it_was(message: Said) -> None:
    assert coding.said(coding.encode(message)) == message


def test_what_belongs_to_the_other_direction_is_refused() -> None:
    with pytest.raises(KeyError):
        coding.order(coding.encode(Joined()))
    with pytest.raises(KeyError):
        coding.said(coding.encode(End()))


@pytest.mark.parametrize("chunks", [(), (32,)])
def test_a_step_arrives_as_plain_numbers_without_the_rows_it_is_for(chunks: tuple[int, ...]) -> None:
    row = Row("r", list(range(50)), pages=[3, 1, 2, 0])
    plan = StepPlan([RowStep(row, 40, 10, 1)], swap_out=[(1, 2)], swap_in=[(2, 1)], copies=[(0, 4)])
    step = Step(7, Prepared(moves_of(plan), prepare(plan.rows, chunks)))
    arrived = coding.order(coding.encode(step))
    assert isinstance(arrived, Step) and arrived.prepared.inputs == step.prepared.inputs
    assert list(arrived.prepared.moves.rows) == []
    assert arrived.prepared.moves.swap_out == [(1, 2)] and arrived.prepared.moves.copies == [(0, 4)]
    assert arrived.prepared.inputs.ids == list(range(40, 50))
    assert arrived.prepared.inputs.slots[-2:] == [0 * 16 + 0, 0 * 16 + 1]


def test_an_error_arrives_with_its_type_and_fields() -> None:
    failed = coding.said(coding.encode(Failed(1, NoDeviceMemory("too large", needed=3, free=2))))
    assert isinstance(failed, Failed) and isinstance(failed.error, NoDeviceMemory)
    assert (str(failed.error), failed.error.needed, failed.error.free) == ("too large", 3, 2)
