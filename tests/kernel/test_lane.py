"""The queue of one model."""

from __future__ import annotations

import pytest

from llmos.kernel.arbiter.fairness import Fairness
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


def test_owners_take_turns_when_their_requests_cost_the_same(lane: Lane) -> None:
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


def test_owners_share_device_time_and_not_turns(lane: Lane) -> None:
    """A short request costs its owner less than a long one: three of the one for one of the other."""
    now, order = 0, []
    for index in range(12):
        lane.add(ticket(f"long{index}", "a"))
        lane.add(ticket(f"short{index}", "b"))
    for _ in range(12):
        picked = lane.pick(now, AGING, EVERY)
        assert picked is not None
        took = (3 if picked[0].owner == "a" else 1) * 1_000_000
        lane.spent(picked[0].id, took)
        now += took
        lane.release(picked[0].id, now)
        order.append(picked[0].owner)
    assert order.count("a") == 3 and order.count("b") == 9


def test_a_long_request_counts_while_it_runs(lane: Lane) -> None:
    lane.slots = 2
    for index in range(4):
        lane.add(ticket(f"a{index}", "a"))
        lane.add(ticket(f"b{index}", "b"))
    first, second = lane.pick(0, AGING, EVERY), lane.pick(0, AGING, EVERY)
    assert first is not None and second is not None and (first[0].id, second[0].id) == ("a0", "b0")
    lane.spent("a0", 5 * SECOND)
    lane.release("b0", SECOND)
    third = lane.pick(SECOND, AGING, EVERY)
    assert third is not None and third[0].id == "b1"
    lane.spent("nobody", SECOND)
    assert lane.ahead_ns("a1") == 4.5 * SECOND


def test_an_estimate_is_charged_at_the_start_and_corrected_at_the_end(lane: Lane) -> None:
    for id, owner in (("warm", "w"), ("a0", "a"), ("a1", "a"), ("b0", "b")):
        lane.add(ticket(id, owner))
    lane.pick(0, AGING, EVERY)
    lane.spent("warm", 8 * SECOND)
    lane.release("warm", SECOND)
    lane.slots = 3
    picked = [lane.pick(SECOND, AGING, EVERY) for _ in range(2)]
    assert [one[0].id for one in picked if one] == ["a0", "b0"]
    assert lane.ahead_ns("a1") == 8 * SECOND
    lane.spent("a0", SECOND)
    assert lane.ahead_ns("a1") == 8 * SECOND
    lane.release("a0", 2 * SECOND)
    assert lane.ahead_ns("a1") == SECOND


def test_a_higher_class_starts_beyond_the_slots_that_lower_ones_fill(lane: Lane) -> None:
    lane.slots, lane.extra = 2, 2
    for index in range(3):
        lane.add(ticket(f"batch{index}", work_class=WorkClass.BATCH))
    assert lane.pick(0, AGING, EVERY) and lane.pick(0, AGING, EVERY) and not lane.pick(0, AGING, EVERY)
    for index in range(3):
        lane.add(ticket(f"now{index}"))
    beyond = [lane.pick(0, AGING, EVERY) for _ in range(3)]
    assert [one[0].id for one in beyond if one] == ["now0", "now1"]
    assert beyond[0] is not None and "beyond 2 slots, which lower work classes fill" in beyond[0][1]
    lane.release("batch0", SECOND)
    assert lane.pick(SECOND, AGING, EVERY) is None
    lane.release("now0", SECOND)
    after = lane.pick(SECOND, AGING, EVERY)
    assert after is not None and after[0].id == "now2"


def test_without_parking_nothing_starts_beyond_the_slots(lane: Lane) -> None:
    lane.add(ticket("batch", work_class=WorkClass.BATCH))
    lane.pick(0, AGING, EVERY)
    lane.add(ticket("now"))
    assert lane.pick(0, AGING, EVERY) is None


def test_an_old_request_of_a_lower_class_does_not_go_beyond_the_slots(lane: Lane) -> None:
    lane.extra = 1
    lane.add(ticket("batch", work_class=WorkClass.BATCH))
    lane.pick(0, AGING, 1)
    lane.add(ticket("old", work_class=WorkClass.BATCH))
    lane.add(ticket("now", at=31 * SECOND))
    picked = lane.pick(31 * SECOND, AGING, 1)
    assert picked is not None and picked[0].id == "now" and lane.pick(31 * SECOND, AGING, 1) is None


def test_what_was_put_back_goes_beyond_the_slots_by_its_class(lane: Lane) -> None:
    lane.slots, lane.extra = 1, 1
    lane.add(ticket("batch", work_class=WorkClass.BATCH))
    lane.add(ticket("batch2", work_class=WorkClass.BATCH))
    started = [lane.pick(0, AGING, EVERY)]
    lane.add(ticket("now"))
    started.append(lane.pick(0, AGING, EVERY))
    for one in started:
        assert one is not None
        lane.put_back(one[0])
    again = [lane.pick(0, AGING, EVERY) for _ in range(3)]
    assert [one[0].id for one in again if one] == ["batch", "now"]


def test_what_is_put_back_is_charged_once(lane: Lane) -> None:
    lane.add(ticket("warm", "w"))
    lane.pick(0, AGING, EVERY)
    lane.release("warm", 4 * SECOND)
    lane.add(ticket("x", "a"))
    lane.add(ticket("other", "b"))
    picked = lane.pick(0, AGING, EVERY)
    assert picked is not None and lane.ahead_ns("x") == 4 * SECOND
    lane.put_back(picked[0])
    lane.pick(0, AGING, EVERY)
    user = lane._accounts["x"].above
    assert user is not None and user.tag == lane.ahead_ns("x") == 4 * SECOND
    lane.put_back(picked[0])
    lane.add(ticket("x2", "a"))
    lane.remove(picked[0])
    assert lane.ahead_ns("x2") == 0


def test_a_lane_that_ends_gives_back_what_was_charged_too_much() -> None:
    fairness = Fairness()
    one, other = Lane("m1", fairness), Lane("m2", fairness)
    for each in (one, other):
        each.slots, each.open = 1, True
        each.add(ticket(f"warm{each.name}", "w"))
        each.pick(0, AGING, EVERY)
        each.release(f"warm{each.name}", 6 * SECOND)
    one.add(ticket("x", "a"))
    one.add(ticket("x1", "a"))
    other.add(ticket("y", "a"))
    other.add(ticket("z", "b"))
    one.pick(0, AGING, EVERY)
    one.spent("x", SECOND)
    assert other.ahead_ns("y") == 6 * SECOND
    one.close()
    assert other.ahead_ns("y") == SECOND and len(fairness) == 4


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


def test_ranks_that_were_used_once_are_forgotten(lane: Lane) -> None:
    for priority in range(500):
        lane.add(ticket(f"p{priority}", priority=priority))
        assert drain(lane) == [f"p{priority}"]
    assert len(lane._turns) <= 64 and not lane._ranks


def test_the_guess_of_waiting_follows_what_requests_took(lane: Lane) -> None:
    assert lane.pace.retry_after_ms(lane.slots) == 100
    for now in (0, 10 * SECOND):
        lane.add(ticket(f"t{now}"))
        lane.pick(now, AGING, EVERY)
        lane.release(f"t{now}", now + 8 * SECOND)
    assert lane.pace.retry_after_ms(lane.slots) == 8000
    lane.add(ticket("slow"))
    lane.pick(0, AGING, EVERY)
    lane.release("slow", 1000 * SECOND)
    assert lane.pace.retry_after_ms(lane.slots) == 60_000


def test_the_predicted_wait_counts_what_goes_first(lane: Lane) -> None:
    """Runs of 8 s and one slot: all of higher rank, of one's own rank as many as fair shares let go first."""
    lane.add(ticket("warm"))
    lane.pick(0, AGING, EVERY)
    lane.release("warm", 8 * SECOND)
    assert lane.wait_ns(ticket("new")) == 0, "a slot is free"
    lane.add(ticket("runs"))
    lane.pick(0, AGING, EVERY)
    assert lane.wait_ns(ticket("new")) == 8 * SECOND
    for index in range(10):
        lane.add(ticket(f"flood{index}", "flood"))
        lane.add(ticket(f"batch{index}", "other", WorkClass.BATCH))
    assert lane.wait_ns(ticket("new", "me")) == (1 + 1) * 8 * SECOND
    assert lane.wait_ns(ticket("new", "flood")) == (10 + 1) * 8 * SECOND
    assert lane.wait_ns(ticket("new", "me", WorkClass.BATCH)) == (10 + 1 + 1) * 8 * SECOND
    assert lane.wait_ns(ticket("new", "me", priority=1)) == 8 * SECOND
    picked = lane.running["runs"].ticket
    lane.put_back(picked)
    lane.slots = 0
    assert lane.wait_ns(ticket("new", "me", priority=1)) == 2 * 8 * SECOND
    lane.slots, lane.extra = 1, 1
    lane.pick(0, AGING, EVERY)
    assert lane.wait_ns(ticket("new", "me", priority=1)) == 8 * SECOND, "its own class fills the slot"


def test_description(lane: Lane) -> None:
    lane.add(ticket("x"))
    assert lane.describe() == "m1 (1 waiting, 0 of 1 running)"
    lane.open = False
    assert lane.describe() == "m1 (1 waiting, 0 of 1 running, which is closed for now)"
