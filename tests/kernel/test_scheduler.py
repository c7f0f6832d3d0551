"""The scheduler: examples. `test_scheduler_machine` is a state machine over every order of events."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmos.kernel.scheduler import SECOND, Decision, Expire, Scheduler, Start, Ticket
from llmos.syscalls.errors import Busy, NotFound, OverQuota
from llmos.syscalls.types import WorkClass


def ticket(id: str, lane: str = "m1", session: str = "s1", at: int = 0, deadline: int | None = None) -> Ticket:
    return Ticket(id, lane, session, "1000", at, deadline_ns=deadline)


def ids(decisions: list[Decision]) -> list[str]:
    return [d.ticket.id for d in decisions]


@pytest.fixture
def scheduler() -> Scheduler:
    scheduler = Scheduler()
    scheduler.set_lane("m1", 1)
    return scheduler


def test_requests_start_as_slots_become_free(scheduler: Scheduler) -> None:
    scheduler.submit(ticket("a"))
    assert scheduler.submit(ticket("b")) == 0
    reason = scheduler.queued_reason("b", 1_500_000_000)
    assert reason is not None and reason.code == "request.queued"
    assert reason.text == "b waits in m1 (2 waiting, 0 of 1 running), about 1.5 s as it seems"
    assert reason.numbers["predicted_wait_s"] == 1.5 and scheduler.queued_reason("nobody's", 0) is None
    (start,) = scheduler.next(SECOND)
    assert isinstance(start, Start) and start.ticket.id == "a"
    assert start.reason.code == "request.start" and start.reason.rule in start.reason.text
    assert start.reason.numbers == {"waiting": 1, "running": 1, "slots": 1, "waited_s": 1.0, "owner_ahead_s": 0.0}
    assert scheduler.next(SECOND) == []
    assert scheduler.finish("a", 2 * SECOND) == ticket("a")
    assert ids(scheduler.next(2 * SECOND)) == ["b"]
    assert scheduler.running() == scheduler.running("m1") == [ticket("b")] and scheduler.running("m2") == []


def test_a_lane_must_exist(scheduler: Scheduler) -> None:
    with pytest.raises(NotFound, match="no model 'm9' takes requests"):
        scheduler.submit(ticket("a", "m9"))


def test_an_id_is_used_once(scheduler: Scheduler) -> None:
    scheduler.submit(ticket("a"))
    with pytest.raises(ValueError, match="twice"):
        scheduler.submit(ticket("a"))
    scheduler.next(0)
    with pytest.raises(ValueError, match="twice"):
        scheduler.submit(ticket("a"))


def test_a_closed_lane_queues_and_starts_when_it_opens(scheduler: Scheduler) -> None:
    scheduler.set_lane("m1", 2, open=False)
    scheduler.submit(ticket("a"))
    scheduler.submit(ticket("b"))
    assert scheduler.next(0) == []
    scheduler.set_lane("m1", 2)
    assert ids(scheduler.next(0)) == ["a", "b"]
    scheduler.set_lane("m1", 0)
    scheduler.submit(ticket("c"))
    scheduler.finish("a", 0)
    assert scheduler.next(0) == []


def test_the_total_is_limited() -> None:
    scheduler = Scheduler(limit=1)
    scheduler.set_lane("m1", 1)
    scheduler.submit(ticket("a"))
    with pytest.raises(Busy) as busy:
        scheduler.submit(ticket("b"))
    assert busy.value.retry_after_ms == 100 and scheduler.waiting() == [ticket("a")]
    scheduler.next(0)
    scheduler.submit(ticket("b"))


def test_each_session_is_limited(scheduler: Scheduler) -> None:
    scheduler.submit(ticket("a"), session_limit=1)
    with pytest.raises(OverQuota) as over:
        scheduler.submit(ticket("b"), session_limit=1)
    assert (over.value.what, over.value.limit, over.value.retry_after_ms) == ("queued_requests", 1, 100)
    scheduler.submit(ticket("c", session="s2"), session_limit=1)
    assert (scheduler.queued("s1"), scheduler.queued("s2"), scheduler.queued("s3")) == (1, 1, 0)
    scheduler.next(0)
    assert scheduler.queued("s1") == 0
    scheduler.submit(ticket("b"), session_limit=1)


def test_no_limit_at_all() -> None:
    scheduler = Scheduler(limit=0)
    scheduler.set_lane("m1", 1)
    for index in range(200):
        scheduler.submit(ticket(str(index)))
    assert len(scheduler.waiting("m1")) == 200


def test_a_waiting_request_expires_at_its_deadline(scheduler: Scheduler) -> None:
    scheduler.submit(ticket("a"))
    scheduler.submit(ticket("b", deadline=5 * SECOND))
    scheduler.next(0)
    assert scheduler.next_deadline() == 5 * SECOND
    assert scheduler.next(5 * SECOND - 1) == []
    (expired,) = scheduler.next(5 * SECOND)
    assert isinstance(expired, Expire) and expired.ticket.id == "b" and not expired.running
    assert expired.reason.code == "request.expired" and "while it waited" in expired.reason.text
    assert scheduler.waiting() == [] and scheduler.next_deadline() is None


def test_a_deadline_that_has_passed_never_starts(scheduler: Scheduler) -> None:
    scheduler.submit(ticket("late", deadline=1))
    (expired,) = scheduler.next(1)
    assert isinstance(expired, Expire)


def test_a_running_request_expires_once_and_keeps_its_slot(scheduler: Scheduler) -> None:
    scheduler.submit(ticket("a", deadline=5))
    scheduler.submit(ticket("b"))
    scheduler.next(0)
    (expired,) = scheduler.next(5)
    assert isinstance(expired, Expire) and expired.running and "while it ran" in expired.reason.text
    assert scheduler.next(6) == [] and scheduler.cancel("a") == "running"
    scheduler.finish("a", 7)
    assert ids(scheduler.next(7)) == ["b"]


def test_a_request_that_ended_does_not_expire(scheduler: Scheduler) -> None:
    scheduler.submit(ticket("a", deadline=5))
    scheduler.next(0)
    scheduler.finish("a", 1)
    assert scheduler.next_deadline() is None and scheduler.next(9) == []
    scheduler.submit(ticket("b", deadline=5))
    scheduler.cancel("b")
    assert scheduler.next(9) == []


def test_an_id_that_comes_back_is_not_ended_by_its_old_deadline(scheduler: Scheduler) -> None:
    scheduler.submit(ticket("a", deadline=5))
    scheduler.cancel("a")
    scheduler.submit(ticket("a", deadline=50))
    assert ids(scheduler.next(9)) == ["a"] and scheduler.running() == [ticket("a", deadline=50)]


def test_cancel_says_where_the_request_was(scheduler: Scheduler) -> None:
    scheduler.submit(ticket("a"))
    scheduler.submit(ticket("b"))
    scheduler.next(0)
    assert (scheduler.cancel("a"), scheduler.cancel("b"), scheduler.cancel("b")) == ("running", "queued", "unknown")
    scheduler.finish("a", 0)
    assert scheduler.next(0) == []


def test_finish_of_something_that_does_not_run(scheduler: Scheduler) -> None:
    assert scheduler.finish("a", 0) is None
    scheduler.submit(ticket("a"))
    assert scheduler.finish("a", 0) is None and scheduler.waiting() == [ticket("a")]


def test_what_a_dead_host_ran_goes_first_again(scheduler: Scheduler) -> None:
    scheduler.submit(ticket("a", deadline=50))
    scheduler.submit(ticket("b"))
    scheduler.next(0)
    assert scheduler.requeue("a") and not scheduler.requeue("a") and not scheduler.requeue("b")
    assert scheduler.waiting("m1") == [ticket("a", deadline=50), ticket("b")] and scheduler.running() == []
    assert scheduler.position("a") == 1
    (again,) = scheduler.next(0)
    assert isinstance(again, Start) and again.ticket.id == "a" and "its driver ended" in again.reason.text
    assert isinstance(scheduler.next(50)[0], Expire)


def test_an_overdue_request_that_is_put_back_expires_in_the_queue(scheduler: Scheduler) -> None:
    scheduler.submit(ticket("a", deadline=5))
    scheduler.next(0)
    scheduler.next(5)
    scheduler.requeue("a")
    (expired,) = scheduler.next(6)
    assert isinstance(expired, Expire) and not expired.running and scheduler.waiting() == []


def test_a_lane_that_ends_gives_its_requests_back(scheduler: Scheduler) -> None:
    scheduler.set_lane("m2", 1)
    for id in ("a", "b", "c"):
        scheduler.submit(ticket(id, deadline=5))
    scheduler.submit(ticket("other", "m2"))
    scheduler.next(0)
    scheduler.next(5)
    dropped = scheduler.drop_lane("m1")
    assert (ids_of(dropped.waiting), ids_of(dropped.running)) == ([], ["a"])
    assert scheduler.drop_lane("m1") == ([], [])
    assert scheduler.finish("a", 9) is None and scheduler.waiting("m1") == []
    assert ids_of(scheduler.running()) == ["other"]


def ids_of(tickets: list[Ticket]) -> list[str]:
    return [t.id for t in tickets]


def test_a_lane_that_ends_with_waiting_requests(scheduler: Scheduler) -> None:
    for id in ("a", "b", "c"):
        scheduler.submit(ticket(id))
    scheduler.next(0)
    dropped = scheduler.drop_lane("m1")
    assert (ids_of(dropped.waiting), ids_of(dropped.running)) == (["b", "c"], ["a"])
    assert scheduler.queued("s1") == 0 and scheduler.next(0) == []


def test_why_a_request_waits(scheduler: Scheduler) -> None:
    for id in ("a", "b", "c"):
        scheduler.submit(ticket(id, at=SECOND))
    scheduler.next(0)
    assert (scheduler.position("a"), scheduler.position("b"), scheduler.position("c")) == (None, 1, 2)
    reason = scheduler.explain("c", 4 * SECOND)
    assert reason is not None and reason.code == "request.waits" and reason.rule
    assert reason.text == "c is number 2 in m1 (2 waiting, 1 of 1 running); it has waited 3.0 s"
    assert reason.numbers["position"] == 2 and scheduler.explain("a", 0) is None


@pytest.mark.parametrize(("waited", "place"), [(30 * SECOND, 8), (30 * SECOND + 1, 3)])
def test_half_a_minute_of_waiting_lifts_a_request(scheduler: Scheduler, waited: int, place: int) -> None:
    scheduler.submit(Ticket("old", "m1", "s1", "x", 0, WorkClass.BACKGROUND))
    order = []
    for number in range(8):
        scheduler.submit(ticket(f"new{number}", at=waited))
    while started := scheduler.next(waited):
        order += ids(started)
        scheduler.finish(order[-1], waited)
    assert order.index("old") == place


def test_old_deadlines_do_not_pile_up(scheduler: Scheduler) -> None:
    for index in range(5000):
        scheduler.submit(ticket(str(index), deadline=10**15))
        scheduler.next(index)
        scheduler.finish(str(index), index)
    assert len(scheduler._deadlines) < 200


@given(st.integers(2, 6), st.integers(1, 20), st.lists(st.sampled_from(WorkClass), min_size=1, max_size=5))
def test_starvation_is_bounded_whatever_arrives(every: int, older: int, stream: list[WorkClass]) -> None:
    """A request of the lowest rank starts within `every` starts for each request older than it, once it is aged."""
    scheduler = Scheduler(aging_ns=10, elder_every=every)
    scheduler.set_lane("m1", 1)
    for index in range(older):
        scheduler.submit(Ticket(f"old{index}", "m1", "s1", "x", 0, WorkClass.BACKGROUND, -1000))
    starts = 0
    while scheduler.running() or scheduler.waiting():
        now = 11 + starts
        arrival = stream[starts % len(stream)]
        scheduler.submit(Ticket(f"new{starts}", "m1", "s2", f"y{starts % 3}", now, arrival, 1000))
        (start,) = scheduler.next(now)
        starts += 1
        scheduler.finish(start.ticket.id, now)
        if start.ticket.id == f"old{older - 1}":
            break
        assert starts <= every * older
    assert starts <= every * older


# ---- overload


@pytest.fixture
def measured() -> Scheduler:
    """One slot, in which eight requests have run for two seconds each; a ninth runs."""
    scheduler = Scheduler(limit=30, queue_ns=60 * SECOND)
    scheduler.set_lane("m1", 1)
    for number in range(9):
        scheduler.submit(ticket(f"w{number}"))
        scheduler.next(0)
        if number < 8:
            scheduler.finish(f"w{number}", 2 * SECOND)
    return scheduler


def test_what_would_be_late_is_refused_with_its_numbers(measured: Scheduler) -> None:
    assert measured.submit(ticket("fits", deadline=5 * SECOND)) == 2 * SECOND
    with pytest.raises(Busy, match=r"m1 is overloaded: it would wait about 4\.0 s .*; try again in 1500 ms") as busy:
        measured.submit(ticket("late", deadline=5 * SECOND))
    (reason,) = busy.value.reasons
    assert (reason["code"], reason["rule"]) == ("request.refused", "deadline")
    assert reason["numbers"] == {
        "waiting": 1, "running": 1, "slots": 1, "predicted_wait_s": 4.0, "needed_s": 6.5, "allowed_s": 5.0,
        "retry_after_ms": 1500,
    }  # fmt: skip
    assert reason["text"].startswith("late is refused: ")
    assert measured.waiting() == [ticket("fits", deadline=5 * SECOND)]


def test_time_that_passed_before_the_queue_counts(measured: Scheduler) -> None:
    with pytest.raises(Busy):
        measured.submit(ticket("late", deadline=5 * SECOND), now=2 * SECOND)


def test_policy_says_how_long_requests_may_wait(measured: Scheduler) -> None:
    measured.set_limits(30, SECOND, 3 * SECOND)
    measured.submit(ticket("a"))
    with pytest.raises(Busy, match=r"requests may wait 3\.0 s"):
        measured.submit(ticket("b"))


def test_a_closed_lane_predicts_nothing(measured: Scheduler) -> None:
    measured.set_lane("m1", 1, open=False)
    for number in range(5):
        assert measured.submit(ticket(str(number), deadline=SECOND)) == 0


def test_what_became_hopeless_leaves_the_slot_to_others(measured: Scheduler) -> None:
    measured.submit(ticket("late", deadline=5 * SECOND))
    measured.submit(ticket("next"))
    measured.finish("w8", 4 * SECOND)
    late, start = measured.next(4 * SECOND)
    assert isinstance(late, Expire) and not late.running and late.reason.code == "request.hopeless"
    assert late.reason.numbers["left_s"] == 1.0 and late.reason.numbers["shortest_run_s"] == 2.125000001
    assert isinstance(start, Start) and start.ticket.id == "next" and measured.cancel("late") == "unknown"


def test_what_is_hopeless_runs_when_nobody_else_wants_the_slot(measured: Scheduler) -> None:
    measured.submit(ticket("late", deadline=5 * SECOND))
    measured.finish("w8", 4 * SECOND)
    assert ids(measured.next(4 * SECOND)) == ["late"]


def test_one_user_leaves_room_for_others(measured: Scheduler) -> None:
    measured.set_limits(30, SECOND, 0)
    for number in range(27):
        measured.submit(ticket(f"f{number}"))
    with pytest.raises(Busy, match="27 requests of user 1000 wait; the room for 3 more is kept") as busy:
        measured.submit(ticket("more"))
    assert busy.value.reasons[0]["numbers"]["of_user"] == 27
    for number in range(3):
        measured.submit(Ticket(f"o{number}", "m1", "s2", "1001", 0))
    with pytest.raises(Busy, match="30 requests wait already"):
        measured.submit(Ticket("o4", "m1", "s2", "1002", 0))


def test_device_time_of_what_does_not_run_is_nobodys(scheduler: Scheduler) -> None:
    scheduler.spent("a", 5)
    scheduler.submit(ticket("a"))
    scheduler.spent("a", 5)
    assert scheduler.changes == 1 and [lane.name for lane in scheduler.busy()] == ["m1"]
