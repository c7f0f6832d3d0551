"""What the device knows of rows: written with one copy, read and moved on without the host."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from llmos.drivers.engine.capture import Eager
from llmos.drivers.engine.lane.seats import PAGES, Cell, Seats
from llmos.drivers.engine.lane.settings import Settings
from llmos.drivers.engine.lane.states import States
from llmos.drivers.engine.steps import Row, RowStep
from llmos.drivers.ops.reference import register_reference
from llmos.drivers.ops.table import OpTable

SPARE_PAGE = 40


class Counting(Eager):
    """Counts copies to the device."""

    def __init__(self) -> None:
        super().__init__(torch.device("cpu"))
        self.copies = 0

    def up(self, values: Sequence[Any], dtype: torch.dtype | None = None) -> Tensor:
        self.copies += 1
        return super().up(values, dtype)


@pytest.fixture
def capture() -> Counting:
    return Counting()


@pytest.fixture
def seats() -> Seats:
    return Seats(3, 4)


@pytest.fixture
def states(seats: Seats, capture: Counting) -> States:
    table = OpTable()
    register_reference(table)
    return States(seats, SPARE_PAGE, table, "float32", capture)


def seated(seats: Seats, id: str, settings: Settings, tokens: int = 3) -> int:
    row = Row(id, list(range(50, 50 + tokens)), pages=[5, 6])
    seat = seats.take(RowStep(row, tokens - 1, 1, 1), settings, [row])
    seats.lead(seat, tokens - 1)
    return seat.number


def test_the_spare_row_never_moves_on(states: States, seats: Seats) -> None:
    assert states.matrix[seats.spare, PAGES:].tolist() == [SPARE_PAGE] * 4
    states.empty()
    for _ in range(3):
        states.choose_next(torch.randn(4, 10), 4)
    assert states.matrix[seats.spare, Cell.POSITION] == 0 == states.matrix[seats.spare, Cell.LIVE]


def test_all_that_changed_is_one_copy_and_nothing_is_none(states: States, seats: Seats, capture: Counting) -> None:
    numbers = [seated(seats, "a", Settings()), seated(seats, "b", Settings(), 9)]
    before = capture.copies
    states.show(numbers)
    assert capture.copies == before + 1 and states.numbers[:2].tolist() == numbers
    assert states.tokens(states.numbers[:2]).tolist() == [52, 58]
    assert states.matrix[numbers[1], Cell.POSITION] == 8 and states.matrix[numbers[0], PAGES:][:2].tolist() == [5, 6]
    states.show(numbers)
    assert capture.copies == before + 1
    states.show(numbers[::-1])
    assert capture.copies == before + 2 and states.numbers[:2].tolist() == numbers[::-1]


def test_each_row_is_chosen_by_its_own_settings(states: States, seats: Seats) -> None:
    drawn = Settings(temperature=1.0, top_k=2, seed=4, base=7)
    numbers = [seated(seats, "a", Settings()), seated(seats, "b", drawn), seated(seats, "c", drawn)]
    states.show(numbers)
    logits = torch.arange(12.0).repeat(3, 1)
    seen = set()
    for step in range(40):
        before = states.matrix[numbers[0], Cell.POSITION].item()
        tokens = states.choose_next(logits, 3).tolist()
        assert tokens[0] == 11 and tokens[1] == tokens[2] in (10, 11), f"step {step}"
        assert states.matrix[numbers[0], Cell.POSITION] == before + 1 and states.tokens(states.numbers[:1]) == 11
        seen.add(tokens[1])
    assert seen == {10, 11}, "each position draws anew"


def test_logits_that_are_not_finite_leave_a_token_that_can_be_looked_up(states: States, seats: Seats) -> None:
    numbers = [seated(seats, "a", Settings())]
    states.show(numbers)
    assert states.choose_next(torch.full((1, 5), torch.nan), 1).tolist() == [-1]
    assert states.tokens(states.numbers[:1]).tolist() == [0]
