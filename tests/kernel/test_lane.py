"""The queue of one model."""

from __future__ import annotations

import pytest

from llmos.kernel.lane import Lane, Ticket
from llmos.syscalls.types import WorkClass

SECOND = 1_000_000_000
AGING, EVERY = 30 * SECOND, 4


def ticket(
    id: str, owner: str = "a", work_class: WorkClass = WorkClass.INTERACTIVE, priority: int = 0, at: int = 0
) -> Ticket:
    return Ticket(id, "m1", "s1", owner, at, work_class, priority)


@pytest.fixture
def lane() -> Lane:
    lane = Lane("m1")
    lane.slots, lane.open = 1, True
    return lane


def drain(lane: Lane, now: int = 0) -> list[str]:
    """The order in which everything starts when each request ends at once."""
    order = []
    while picked := lane.pick(now, AGING, EVERY):
        order.append(picked[0].id)
        lane.release(picked[0].id, now)
    return order


def test_class_then_priority_then_arrival(lane: Lane) -> None:
    for one in (
        ticket("background", work_class=WorkClass.BACKGROUND, priority=1000),
        ticket("batch", work_class=WorkClass.BATCH, priority=5),
        ticket("low", priority=-1),
        ticket("first"),
        ticket("second"),
        ticket("high", priority=3),
    ):
        lane.add(one)
    assert drain(lane) == ["high", "first", "second", "low", "batch", "background"]


def test_owners_take_turns_at_equal_rank(lane: Lane) -> None:
    for index in range(4):
        lane.add(ticket(f"a{index}"))
    lane.add(ticket("b0", "b"))
    lane.add(ticket("b1", "b"))
    lane.add(ticket("c0", "c"))
    assert drain(lane) == ["a0", "b0", "c0", "a1", "b1", "a2", "a3"]


def test_a_flood_delays_another_owner_by_one_request(lane: Lane) -> None:
    for index in range(1000):
        lane.add(ticket(f"flood{index}", "flood"))
    lane.add(ticket("mine", "me"))
    assert drain(lane)[:3] == ["flood0", "mine", "flood1"]


def test_nothing_starts_when_closed_or_full(lane: Lane) -> None:
    lane.add(ticket("x"))
    lane.open = False
    assert lane.pick(0, AGING, EVERY) is None
    lane.open, lane.slots = True, 0
    assert lane.pick(0, AGING, EVERY) is None
    lane.slots = 1
    assert lane.pick(0, AGING, EVERY) is not None and lane.pick(0, AGING, EVERY) is None


def test_an_old_request_of_low_rank_gets_one_start_in_four(lane: Lane) -> None:
    for index in range(3):
        lane.add(ticket(f"old{index}", work_class=WorkClass.BACKGROUND))
    for index in range(8):
        lane.add(ticket(f"new{index}", at=31 * SECOND))
    order = drain(lane, 31 * SECOND)
    assert order == [
        "new0", "new1", "new2", "old0", "new3", "new4", "new5", "old1", "new6", "new7", "old2",
    ]  # fmt: skip


def test_a_lift_takes_its_owners_turn(lane: Lane) -> None:
    for one in (ticket("a0", "a", priority=-1), ticket("a1", "a", priority=-1), ticket("b0", "b", priority=-1)):
        lane.add(one)
    for index in range(3):
        lane.add(ticket(f"new{index}", "c"))
    assert drain(lane, 31 * SECOND) == ["new0", "new1", "new2", "a0", "b0", "a1"]


def test_what_counts_is_how_long_it_waited_not_when_it_came(lane: Lane) -> None:
    lane.add(ticket("late", work_class=WorkClass.BATCH, at=100 * SECOND))
    for index in range(8):
        lane.add(ticket(f"new{index}", at=100 * SECOND))
    assert drain(lane, 130 * SECOND)[-1] == "late"


def test_nobody_is_lifted_before_the_time(lane: Lane) -> None:
    lane.add(ticket("old", work_class=WorkClass.BATCH))
    for index in range(8):
        lane.add(ticket(f"new{index}"))
    assert drain(lane, 30 * SECOND)[-1] == "old"


def test_a_request_put_back_goes_first(lane: Lane) -> None:
    lane.slots = 2
    for id in ("x", "y", "z"):
        lane.add(ticket(id))
    lane.add(ticket("high", priority=9))
    first = [lane.pick(0, AGING, EVERY), lane.pick(0, AGING, EVERY)]
    started = [picked[0] for picked in first if picked]
    for one in started:
        lane.put_back(one)
    assert [t.id for t in lane.tickets()] == ["high", "x", "y", "z"] and len(lane) == 4
    assert [lane.position(t) for t in lane.tickets()] == [1, 2, 3, 4]
    assert drain(lane) == ["high", "x", "y", "z"]


def test_a_request_put_back_can_be_removed(lane: Lane) -> None:
    lane.add(ticket("x"))
    picked = lane.pick(0, AGING, EVERY)
    assert picked is not None
    lane.put_back(picked[0])
    lane.remove(picked[0])
    assert drain(lane) == [] and len(lane) == 0


def test_position_is_by_rank_and_arrival(lane: Lane) -> None:
    tickets = [ticket("a", "a"), ticket("b", "b", priority=-1), ticket("c", "a"), ticket("d", "c", priority=1)]
    for one in tickets:
        lane.add(one)
    assert [lane.position(one) for one in tickets] == [2, 4, 3, 1]


def test_ranks_leave_with_their_last_request(lane: Lane) -> None:
    one, two = ticket("x", "a", priority=5), ticket("y", "b", priority=5)
    lane.add(one)
    lane.add(two)
    lane.remove(one)
    lane.remove(two)
    lane.add(ticket("z"))
    assert drain(lane) == ["z"]


def test_the_guess_of_waiting_follows_what_requests_took(lane: Lane) -> None:
    assert lane.retry_after_ms() == 100
    for now in (0, 10 * SECOND):
        lane.add(ticket(f"t{now}"))
        lane.pick(now, AGING, EVERY)
        lane.release(f"t{now}", now + 8 * SECOND)
    assert lane.retry_after_ms() == 8000
    lane.add(ticket("slow"))
    lane.pick(0, AGING, EVERY)
    lane.release("slow", 1000 * SECOND)
    assert lane.retry_after_ms() == 60_000


def test_description(lane: Lane) -> None:
    lane.add(ticket("x"))
    assert lane.describe() == "m1 (1 waiting, 0 of 1 running)"
    lane.open = False
    assert lane.describe() == "m1 (1 waiting, 0 of 1 running, which is closed for now)"
