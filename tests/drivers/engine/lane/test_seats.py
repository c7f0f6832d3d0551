"""Seats: after what they say is written, the device holds what each row of the step needs."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmos.drivers.engine.lane.seats import PAGES, Cell, Seat, Seats, bits
from llmos.drivers.engine.lane.settings import GREEDY, Settings
from llmos.drivers.engine.steps import PAGE_TOKENS, Row, RowStep

WIDTH = 4


def row(id: str, tokens: int = 5, pages: int = 1) -> Row:
    made = Row(id, list(range(100, 100 + tokens)), pages=list(range(pages)))
    made.computed = tokens - 1
    return made


def lead(seats: Seats, made: Row, settings: Settings = GREEDY, beside: tuple[Row, ...] = ()) -> Seat:
    seat = seats.take(RowStep(made, made.computed, 1, 1), settings, (made, *beside))
    seats.lead(seat, made.computed)
    return seat


def test_a_float_is_kept_bit_by_bit() -> None:
    assert struct.unpack("<d", struct.pack("<q", bits(0.1)))[0] == 0.1 and bits(0.0) == 0


def test_what_the_device_holds_is_not_written_again() -> None:
    seats, one = Seats(2, WIDTH), row("a", PAGE_TOKENS, 1)
    seat = lead(seats, one, Settings(0.5, 3, 0.9, 0.1, seed=7, base=-4))
    start = seat.number * seats.columns
    assert seats.cells[start + Cell.TOKEN] == one.tokens[-1] and seats.cells[start + Cell.POSITION] == PAGE_TOKENS - 1
    assert [seats.cells[start + cell] for cell in (Cell.SEED, Cell.BASE, Cell.LIVE)] == [7, -4, 1]
    seats.cells.clear()
    seats.stepped(seat, chosen=True)
    one.computed, one.ahead, one.pages = PAGE_TOKENS, 1, [0, 3]
    assert lead(seats, one) is seat and seats.cells == {start + PAGES + 1: 3}


def test_what_the_host_chose_is_written() -> None:
    seats, one = Seats(1, WIDTH), row("a")
    seat = lead(seats, one)
    seats.cells.clear()
    seats.stepped(seat, chosen=False)
    one.tokens.append(42)
    one.computed += 1
    lead(seats, one)
    assert seats.cells == {seat.number * seats.columns + Cell.TOKEN: 42}


def test_a_token_that_nobody_has_is_an_error() -> None:
    seats, one = Seats(1, WIDTH), row("a")
    lead(seats, one)
    one.computed, one.ahead = one.computed + 1, 1
    with pytest.raises(ValueError, match="not known"):
        lead(seats, one)


def test_who_has_ended_makes_room_first() -> None:
    seats, rows = Seats(2, WIDTH), [row(name) for name in "abc"]
    first, second = (lead(seats, each) for each in rows[:2])
    rows[1].generation += 1
    assert seats.of(rows[1]) is None, "it has ended, though nobody has taken its seat"
    assert lead(seats, rows[2]).number == second.number
    assert seats.of(rows[0]) is first and seats.of(rows[1]) is None


def test_those_beside_keep_their_seats() -> None:
    seats, rows = Seats(2, WIDTH), [row(name) for name in "abc"]
    first, second = (lead(seats, each) for each in rows[:2])
    assert lead(seats, rows[2], beside=(rows[0],)).number == second.number
    assert seats.of(rows[0]) is first
    with pytest.raises(ValueError, match="seats"):
        seats.take(RowStep(rows[1], 4, 1, 1), GREEDY, rows)


def test_a_row_that_ended_begins_anew() -> None:
    seats, one = Seats(1, WIDTH), row("a")
    lead(seats, one)
    seats.cells.clear()
    one.generation += 1
    lead(seats, one, Settings(seed=9))
    assert seats.cells[Cell.SEED] == 9 and Cell.TOKEN in seats.cells


@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from(["step", "page", "host", "end"])), max_size=60))
def test_the_matrix_follows_the_rows(changes: list[tuple[int, str]]) -> None:
    """Three seats for six rows that come and go; a model of the device writes what it is told and steps."""
    seats, rows = Seats(3, WIDTH), [row(str(at)) for at in range(6)]
    matrix = [[0] * seats.columns for _ in range(4)]
    for at, what in changes:
        one = rows[at]
        if what == "end":
            one.generation += 1
            rows[at] = row(f"{at} again")
            continue
        if what == "page":
            one.pages = [(one.pages[0] + 1) % 50, *one.pages[1:]]
        seat = lead(seats, one, Settings(seed=at))
        for cell, value in seats.cells.items():
            matrix[cell // seats.columns][cell % seats.columns] = value
        seats.cells.clear()
        held = matrix[seat.number]
        assert held[Cell.TOKEN] == one.tokens[one.computed] and held[Cell.POSITION] == one.computed
        assert held[PAGES : PAGES + len(one.pages)] == one.pages and held[Cell.SEED] == at
        if one.computed + 2 >= WIDTH * PAGE_TOKENS:
            rows[at] = row(f"{at} anew")
            one.generation += 1
            continue
        seats.stepped(seat, chosen=what != "host")
        one.tokens.append(7 * one.computed + at)
        held[Cell.TOKEN] = one.tokens[-1] if what != "host" else -5
        held[Cell.POSITION] += 1
        one.computed += 1
        if one.computed >= len(one.pages) * PAGE_TOKENS:
            one.pages.append(len(one.pages) + 10 * at)
