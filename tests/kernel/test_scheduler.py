"""The scheduler: examples, then a state machine over every order of events."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

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
    reason = scheduler.submit(ticket("b"))
    assert reason.code == "request.queued" and "2 waiting, 0 of 1 running" in reason.text
    (start,) = scheduler.next(SECOND)
    assert isinstance(start, Start) and start.ticket.id == "a"
    assert start.reason.code == "request.start" and start.reason.rule in start.reason.text
    assert start.reason.numbers == {"waiting": 1, "running": 1, "slots": 1, "waited_s": 1.0}
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


class Queue(RuleBasedStateMachine):
    """No request is lost or started twice, no lane runs more than its slots, and every deadline is kept."""

    LANES = ("m1", "m2")

    def __init__(self) -> None:
        super().__init__()
        self.scheduler = Scheduler(limit=30, aging_ns=20, elder_every=3)
        self.now = 0
        self.number = 0
        self.slots: dict[str, tuple[int, bool]] = {}
        self.waiting: dict[str, Ticket] = {}
        self.running: dict[str, Ticket] = {}
        self.back: list[str] = []
        self.overdue: set[str] = set()
        self.since_rank: Counter[str] = Counter()

    lanes = st.sampled_from(LANES)

    @rule(lane=lanes, slots=st.integers(-1, 3), open=st.booleans())
    def set_lane(self, lane: str, slots: int, open: bool) -> None:
        self.scheduler.set_lane(lane, slots, open)
        self.slots[lane] = (max(slots, 0), open)

    @precondition(lambda self: self.slots)
    @rule(
        data=st.data(),
        owner=st.sampled_from(["x", "y"]),
        work_class=st.sampled_from(WorkClass),
        priority=st.integers(-1, 1),
        deadline=st.none() | st.integers(-5, 60),
        limit=st.sampled_from([0, 3]),
    )
    def submit(
        self, data: st.DataObject, owner: str, work_class: WorkClass, priority: int, deadline: int | None, limit: int
    ) -> None:
        lane = data.draw(st.sampled_from(sorted(self.slots)))
        self.number += 1
        due = None if deadline is None else self.now + deadline
        one = Ticket(f"r{self.number}", lane, f"s-{owner}", owner, self.now, work_class, priority, due)
        mine = [t for t in self.waiting.values() if t.session == one.session]
        try:
            self.scheduler.submit(one, limit)
        except Busy:
            assert len(self.waiting) >= 30
        except OverQuota:
            assert limit and len(mine) >= limit
        else:
            assert len(self.waiting) < 30 and (not limit or len(mine) < limit)
            self.waiting[one.id] = one

    @rule(wait=st.integers(0, 30))
    def run(self, wait: int) -> None:
        self.now += wait
        decisions = self.scheduler.next(self.now)
        kinds = [isinstance(d, Start) for d in decisions]
        assert kinds == sorted(kinds), "deadlines come first"
        for decision in decisions:
            one = decision.ticket
            if isinstance(decision, Expire):
                assert one.deadline_ns is not None and one.deadline_ns <= self.now
                if decision.running:
                    assert one.id in self.running and one.id not in self.overdue
                    self.overdue.add(one.id)
                else:
                    self.leave(one.id)
            else:
                self.started(decision)
        for lane, (slots, open) in self.slots.items():
            left = [t for t in self.waiting.values() if t.lane == lane]
            busy = [t for t in self.running.values() if t.lane == lane]
            assert not (left and open and len(busy) < slots), "a free slot stays idle"
        for one in self.waiting.values():
            assert one.deadline_ns is None or one.deadline_ns > self.now
        for one in self.running.values():
            assert one.deadline_ns is None or one.deadline_ns > self.now or one.id in self.overdue

    def started(self, start: Start) -> None:
        one = start.ticket
        assert one.id in self.waiting and one.id not in self.running
        slots, open = self.slots[one.lane]
        assert open and len([t for t in self.running.values() if t.lane == one.lane]) < slots
        rivals = [t for t in self.waiting.values() if t.lane == one.lane]
        front = [id for id in self.back if self.waiting[id].lane == one.lane]
        if front:
            assert one.id == front[0]
        else:
            better = [t for t in rivals if t.rank < one.rank]
            eldest = rivals[0]
            if better:
                assert one is eldest and self.now - one.arrived_ns > 20 and self.since_rank[one.lane] >= 2
            else:
                earlier = [t for t in rivals if (t.rank, t.owner) == (one.rank, one.owner)]
                assert one is earlier[0]
            self.since_rank[one.lane] = 0 if one is eldest else self.since_rank[one.lane] + 1
        self.leave(one.id)
        self.running[one.id] = one

    def leave(self, id: str) -> None:
        del self.waiting[id]
        if id in self.back:
            self.back.remove(id)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        id = data.draw(st.sampled_from(sorted(self.running)))
        assert self.scheduler.finish(id, self.now) == self.running.pop(id)
        assert self.scheduler.finish(id, self.now) is None
        self.overdue.discard(id)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def requeue(self, data: st.DataObject) -> None:
        id = data.draw(st.sampled_from(sorted(self.running)))
        assert self.scheduler.requeue(id)
        self.waiting[id] = self.running.pop(id)
        self.back.append(id)
        self.overdue.discard(id)

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        id = data.draw(st.sampled_from([*sorted(self.waiting), *sorted(self.running), "never"]))
        found = self.scheduler.cancel(id)
        assert found == ("queued" if id in self.waiting else "running" if id in self.running else "unknown")
        if found == "queued":
            self.leave(id)

    @rule(lane=lanes)
    def drop(self, lane: str) -> None:
        dropped = self.scheduler.drop_lane(lane)
        assert {t.id for t in dropped.waiting} == {t.id for t in self.waiting.values() if t.lane == lane}
        assert {t.id for t in dropped.running} == {t.id for t in self.running.values() if t.lane == lane}
        for one in dropped.waiting:
            self.leave(one.id)
        for one in dropped.running:
            del self.running[one.id]
            self.overdue.discard(one.id)
        self.slots.pop(lane, None)
        self.since_rank[lane] = 0

    @invariant()
    def nothing_is_lost(self) -> None:
        assert {t.id for t in self.scheduler.waiting()} == set(self.waiting)
        assert {t.id for t in self.scheduler.running()} == set(self.running)
        for owner in ("x", "y"):
            mine = [t for t in self.waiting.values() if t.session == f"s-{owner}"]
            assert self.scheduler.queued(f"s-{owner}") == len(mine)
        for lane in self.LANES:
            places = [self.scheduler.position(t.id) for t in self.waiting.values() if t.lane == lane]
            assert sorted(p for p in places if p) == list(range(1, len(places) + 1))

    @invariant()
    def the_loop_wakes_for_every_deadline(self) -> None:
        due = [
            t.deadline_ns
            for t in [*self.waiting.values(), *self.running.values()]
            if t.deadline_ns is not None and t.id not in self.overdue
        ]
        if due:
            wake = self.scheduler.next_deadline()
            assert wake is not None and wake <= min(due)


Queue.TestCase.settings = settings(max_examples=80, stateful_step_count=50, deadline=None)
TestQueue = Queue.TestCase
