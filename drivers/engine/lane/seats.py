"""Which place on the device each row has, and what has to be written there before a step. Numbers only.

A row keeps its place, its seat, as long as it is in steps; what the device holds there is known here, so that a step
that goes on where the last one ended has nothing to write but new pages. A seat whose row has ended, or that its row
does not need in this step, is given to another when none is free.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import IntEnum

from ..steps import Row, RowStep
from .settings import Settings

NOWHERE = -1


class Cell(IntEnum):
    """What the device has of a row, as int64; the last three are the bits of a float64. The pages follow."""

    TOKEN = 0
    """The next token to be computed, or -1 where its logits were not finite."""
    POSITION = 1
    """Of that token."""
    LIVE = 2
    """1, and 0 for the spare seat."""
    ADAPTER = 3
    SEED = 4
    BASE = 5
    TOP_K = 6
    TEMPERATURE = 7
    TOP_P = 8
    MIN_P = 9


PAGES = len(Cell)


@dataclass(eq=False)
class Seat:
    """A place and what the device holds there: the token at `token`, to be computed at `position`."""

    number: int
    row: Row
    generation: int
    token: int = NOWHERE
    position: int = NOWHERE
    pages: list[int] = field(default_factory=list)

    @property
    def over(self) -> bool:
        """Whether its row has ended."""
        return self.row.generation != self.generation


class Seats:
    """The seats 0 to `count` - 1; seat `count` is spare. A row has at most `width` pages."""

    def __init__(self, count: int, width: int) -> None:
        self.spare = count
        self.columns = PAGES + width
        self.cells: dict[int, int] = {}
        """What is to be written before the next step: cells by their number, row after row of the matrix."""
        self._free = list(range(count - 1, -1, -1))
        self._seats: dict[int, Seat] = {}
        """By the id of the row object, which the seat keeps alive; the one used least recently first."""

    def of(self, row: Row) -> Seat | None:
        """The seat of a row, if it has one."""
        seat = self._seats.get(id(row))
        return None if seat is None or seat.over else seat

    def take(self, step: RowStep, settings: Settings, beside: Collection[Row]) -> Seat:
        """The seat of a row in a step, its own or another one. The rows `beside` keep theirs."""
        row = step.row
        seat = self._seats.pop(id(row), None)
        if seat is None or seat.over:
            number = seat.number if seat is not None else self._vacant(beside)
            seat = Seat(number, row, row.generation)
            self._settle(number, row, settings)
        self._seats[id(row)] = seat
        return seat

    def lead(self, seat: Seat, position: int) -> None:
        """Let the device go on with the row's token at a position: write what it does not hold yet.

        Raises ValueError for a token that is neither known nor held.
        """
        row = seat.row
        if seat.token != position:
            if position >= len(row.tokens):
                raise ValueError(f"the token {position} of row {row.id} is not known, and not on the device")
            self._write(seat.number, Cell.TOKEN, row.tokens[position])
            seat.token = position
        self.place(seat, position)
        if seat.pages != row.pages:
            before = seat.pages
            for at, page in enumerate(row.pages):
                if at >= len(before) or before[at] != page:
                    self._write(seat.number, PAGES + at, page)
            seat.pages = list(row.pages)

    def place(self, seat: Seat, position: int) -> None:
        """Let the device know how far a row is."""
        if seat.position != position:
            self._write(seat.number, Cell.POSITION, position)
            seat.position = position

    def stepped(self, seat: Seat, chosen: bool) -> None:
        """A step went over the seat: it is one position on, and holds the token there, if it was `chosen` for good."""
        seat.position += 1
        seat.token = seat.position if chosen else NOWHERE

    def clear(self) -> None:
        """Nobody has a seat any more."""
        for seat in self._seats.values():
            self._free.append(seat.number)
        self._seats.clear()

    def _vacant(self, beside: Collection[Row]) -> int:
        if self._free:
            return self._free.pop()
        taken = {id(row) for row in beside}
        key = next(
            (key for key, seat in self._seats.items() if seat.over),
            next((key for key in self._seats if key not in taken), None),
        )
        if key is None:
            raise ValueError(f"{len(taken)} rows for {self.spare} seats")
        return self._seats.pop(key).number

    def _settle(self, number: int, row: Row, settings: Settings) -> None:
        values: Mapping[Cell, int] = {
            Cell.LIVE: 1, Cell.ADAPTER: row.adapter, Cell.SEED: settings.seed, Cell.BASE: settings.base,
            Cell.TOP_K: settings.top_k, Cell.TEMPERATURE: bits(settings.temperature), Cell.TOP_P: bits(settings.top_p),
            Cell.MIN_P: bits(settings.min_p),
        }  # fmt: skip
        for cell, value in values.items():
            self._write(number, cell, value)

    def _write(self, number: int, column: int, value: int) -> None:
        self.cells[number * self.columns + column] = value


def bits(number: float) -> int:
    """A float64 as the int64 of the same bits."""
    (found,) = struct.unpack("<q", struct.pack("<d", number))
    return int(found)
