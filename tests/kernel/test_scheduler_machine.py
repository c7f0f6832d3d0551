"""The scheduler in every order of events, against what each of its promises says in plain words."""

from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from llmos.kernel.lane import CLASS_RANK
from llmos.kernel.scheduler import GREED, Expire, Scheduler, Start, Ticket
from llmos.syscalls.errors import Busy, OverQuota
from llmos.syscalls.types import WorkClass

LIMIT, AGING, EVERY = 30, 20, 3
OWNERS = ("x", "y", "y/t")


class Queue(RuleBasedStateMachine):
    """No request is lost or started twice, slots and classes are kept, deadlines are met, refusals carry numbers."""

    LANES = ("m1", "m2")

    def __init__(self) -> None:
        super().__init__()
        self.scheduler = Scheduler(limit=LIMIT, aging_ns=AGING, elder_every=EVERY, queue_ns=200)
        self.now = 0
        self.number = 0
        self.lanes: dict[str, tuple[int, int, bool]] = {}
        """Slots, how many more, whether it is open."""
        self.waiting: dict[str, Ticket] = {}
        self.running: dict[str, Ticket] = {}
        self.back: list[str] = []
        self.overdue: set[str] = set()
        self.since_elder: Counter[str] = Counter()
        self.ended: Counter[str] = Counter()

    names = st.sampled_from(LANES)

    @initialize()
    def begin(self) -> None:
        self.set_lane("m1", 2, 2, True)

    @rule(
        lane=names, slots=st.sampled_from([2, 1, 3, 0, -1]), extra=st.sampled_from([2, 1, 0]),
        open=st.sampled_from([True, True, True, False]),
    )  # fmt: skip
    def set_lane(self, lane: str, slots: int, extra: int, open: bool) -> None:
        self.scheduler.set_lane(lane, slots, open, "device", extra)
        self.lanes[lane] = (max(slots, 0), extra, open)

    @precondition(lambda self: self.lanes)
    @rule(
        data=st.data(),
        owner=st.sampled_from(OWNERS),
        work_class=st.sampled_from(WorkClass),
        priority=st.integers(-1, 1),
        deadline=st.none() | st.integers(-5, 60),
        limit=st.sampled_from([0, 3]),
        weight=st.sampled_from([50, 100]),
        count=st.integers(1, 4),
    )
    def submit(
        self, data: st.DataObject, owner: str, work_class: WorkClass, priority: int, deadline: int | None, limit: int,
        weight: int, count: int,
    ) -> None:  # fmt: skip
        """Some requests of one kind; the kernel then starts what may start, as it does after everything."""
        lane = data.draw(st.sampled_from(sorted(self.lanes)))
        for _ in range(count):
            self.submit_one(lane, owner, work_class, priority, deadline, limit, weight)
        self.run(0)

    def submit_one(
        self, lane: str, owner: str, work_class: WorkClass, priority: int, deadline: int | None, limit: int, weight: int
    ) -> None:
        self.number += 1
        due = None if deadline is None else self.now + deadline
        one = Ticket(f"r{self.number}", lane, f"s-{owner}", owner, self.now, work_class, priority, due, (weight, 100))
        mine = [t for t in self.waiting.values() if t.session == one.session]
        of_user = [t for t in self.waiting.values() if t.owner[0] == owner[0]]
        full = len(of_user) >= GREED * (LIMIT - len(self.waiting))
        try:
            self.scheduler.submit(one, limit)
        except Busy as busy:
            assert 100 <= busy.retry_after_ms <= 60_000
            (reason,) = busy.reasons
            assert reason["code"] == "request.refused" and reason["numbers"]
            if full:
                assert reason["numbers"]["limit"] == LIMIT and reason["numbers"]["of_user"] == len(of_user)
            else:
                self.refused(one, reason)
        except OverQuota as over:
            assert limit and len(mine) >= limit and over.limit == limit
        else:
            assert not full and (not limit or len(mine) < limit)
            self.waiting[one.id] = one

    def refused(self, one: Ticket, reason: dict[str, Any]) -> None:
        """Turned away for how long it would wait: never on a guess, never when it could start at once."""
        slots, _extra, open = self.lanes[one.lane]
        assert open and self.ended[one.lane] >= 8 and len(self.at(one.lane)) >= slots
        numbers = reason["numbers"]
        assert numbers["needed_s"] > numbers["allowed_s"] and numbers["needed_s"] >= numbers["predicted_wait_s"] > 0
        assert reason["rule"] in ("deadline", "limits.queue_s")
        allowed = 200 if reason["rule"] == "limits.queue_s" else (one.deadline_ns or 0) - self.now
        assert numbers["allowed_s"] == allowed / 1e9

    def at(self, lane: str) -> list[Ticket]:
        return [t for t in self.running.values() if t.lane == lane]

    @rule(wait=st.integers(0, 30))
    def run(self, wait: int) -> None:
        self.now += wait
        decisions = self.scheduler.next(self.now)
        past = [isinstance(d, Expire) and d.reason.code == "request.expired" for d in decisions]
        assert past == sorted(past, reverse=True), "deadlines come first"
        for decision in decisions:
            one = decision.ticket
            assert decision.reason.numbers and decision.reason.rule
            if isinstance(decision, Start):
                self.chosen(one)
                self.leave(one.id)
                self.running[one.id] = one
            elif decision.reason.code == "request.hopeless":
                assert not decision.running and one.deadline_ns is not None and self.ended[one.lane] >= 8
                self.chosen(one)
                self.leave(one.id)
                assert [t for t in self.waiting.values() if t.lane == one.lane], "others want its slot"
            else:
                assert one.deadline_ns is not None and one.deadline_ns <= self.now
                if decision.running:
                    assert one.id in self.running and one.id not in self.overdue
                    self.overdue.add(one.id)
                else:
                    self.leave(one.id)
        for lane in self.lanes:
            left = [t for t in self.waiting.values() if t.lane == lane]
            assert not any(self.may_start(t) for t in left), "a free slot stays idle"
        for one in self.waiting.values():
            assert one.deadline_ns is None or one.deadline_ns > self.now
        for one in self.running.values():
            assert one.deadline_ns is None or one.deadline_ns > self.now or one.id in self.overdue

    def may_start(self, one: Ticket) -> bool:
        """A slot is free, or work of lower classes fills it and may be parked."""
        slots, extra, open = self.lanes[one.lane]
        others = self.at(one.lane)
        not_lower = [t for t in others if t.rank[0] <= one.rank[0]]
        return open and (len(others) < slots or (len(not_lower) < slots and len(others) < slots + extra))

    def chosen(self, one: Ticket) -> None:
        """It is the turn of this one, and of no other."""
        assert one.id in self.waiting and one.id not in self.running
        slots, extra, open = self.lanes[one.lane]
        others = self.at(one.lane)
        assert open and len(others) < slots + extra
        rivals = [t for t in self.waiting.values() if t.lane == one.lane]
        front = [self.waiting[id] for id in self.back if self.waiting[id].lane == one.lane]
        front = [t for t in front if self.may_start(t)]
        if front:
            assert one is front[0]
            return
        rivals = [t for t in rivals if t.id not in self.back]
        better = [t for t in rivals if t.rank < one.rank]
        eldest = rivals[0]
        if better:
            assert one is eldest and self.now - one.arrived_ns > AGING and self.since_elder[one.lane] >= EVERY - 1
            assert self.may_start(min(rivals, key=lambda t: t.rank))
            lower = [t for t in others if t.rank[0]]
            assert len(others) < slots or not one.rank[0] or len(lower) < slots
        else:
            assert self.may_start(one)
            earlier = [t for t in rivals if (t.rank, t.owner) == (one.rank, one.owner)]
            assert one is earlier[0] or one is eldest
            room = len(others) < slots or not eldest.rank[0] or len([t for t in others if t.rank[0]]) < slots
            if room and self.now - eldest.arrived_ns > AGING and self.since_elder[one.lane] >= EVERY - 1:
                assert one is eldest, "who waited too long has had no turn for too long"
        self.since_elder[one.lane] = 0 if one is eldest else self.since_elder[one.lane] + 1

    def leave(self, id: str) -> None:
        del self.waiting[id]
        if id in self.back:
            self.back.remove(id)

    @precondition(lambda self: self.lanes and len(self.waiting) < 10)
    @rule(data=st.data(), took=st.integers(1, 40))
    def become_measured(self, data: st.DataObject, took: int) -> None:
        """So many requests end in an idle lane that its times count."""
        lane = data.draw(st.sampled_from(sorted(self.lanes)))
        slots, _extra, open = self.lanes[lane]
        idle = not self.at(lane) and not any(t.lane == lane for t in self.waiting.values())
        for _ in range(8 if open and slots and idle else 0):
            self.number += 1
            one = self.waiting[f"r{self.number}"] = Ticket(f"r{self.number}", lane, "s-x", "x", self.now)
            self.scheduler.submit(one)
            self.run(0)
            self.now += took
            assert self.scheduler.finish(one.id, self.now) is self.running.pop(one.id)
            self.ended[lane] += 1

    @precondition(lambda self: self.running)
    @rule(data=st.data(), ns=st.integers(0, 50))
    def spend(self, data: st.DataObject, ns: int) -> None:
        self.scheduler.spent(data.draw(st.sampled_from([*sorted(self.running), "nobody's"])), ns)

    @precondition(lambda self: self.running)
    @rule(data=st.data(), took=st.integers(0, 20))
    def finish(self, data: st.DataObject, took: int) -> None:
        id = data.draw(st.sampled_from(sorted(self.running)))
        self.now += took
        one = self.running.pop(id)
        assert self.scheduler.finish(id, self.now) == one
        assert self.scheduler.finish(id, self.now) is None
        self.ended[one.lane] += 1
        self.overdue.discard(id)
        self.run(0)

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

    @precondition(lambda self: self.number % 4 == 0)
    @rule(lane=names)
    def drop(self, lane: str) -> None:
        dropped = self.scheduler.drop_lane(lane)
        assert {t.id for t in dropped.waiting} == {t.id for t in self.waiting.values() if t.lane == lane}
        assert {t.id for t in dropped.running} == {t.id for t in self.at(lane)}
        for one in dropped.waiting:
            self.leave(one.id)
        for one in dropped.running:
            del self.running[one.id]
            self.overdue.discard(one.id)
        self.lanes.pop(lane, None)
        self.since_elder[lane] = self.ended[lane] = 0

    @invariant()
    def nothing_is_lost(self) -> None:
        assert {t.id for t in self.scheduler.waiting()} == set(self.waiting)
        assert {t.id for t in self.scheduler.running()} == set(self.running)
        for owner in OWNERS:
            mine = [t for t in self.waiting.values() if t.session == f"s-{owner}"]
            assert self.scheduler.queued(f"s-{owner}") == len(mine)
        for lane in self.LANES:
            places = [self.scheduler.position(t.id) for t in self.waiting.values() if t.lane == lane]
            assert sorted(p for p in places if p) == list(range(1, len(places) + 1))

    @invariant()
    def who_has_work_is_known(self) -> None:
        """What the shares of models are made from."""
        everybody = [*self.waiting.values(), *self.running.values()]
        found = {lane.name: [set(each) for each in lane.demand()] for lane in self.scheduler.busy()}
        for lane in self.LANES:
            here = [t for t in everybody if t.lane == lane]
            if here:
                wanted = [{t.owner[0] for t in here if CLASS_RANK[t.work_class] == rank} for rank in range(3)]
                assert found[lane] == wanted
            else:
                assert lane not in found

    @invariant()
    def nobody_owes_when_nobody_wants_anything(self) -> None:
        if not self.waiting and not self.running:
            assert all(len(fairness) == 0 for fairness in self.scheduler._devices.values())

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


Queue.TestCase.settings = settings(max_examples=80, stateful_step_count=60, deadline=None)
TestQueue = Queue.TestCase
