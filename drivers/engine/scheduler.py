"""Which rows take part in the next step of a paged model.

Pure: time is `time.monotonic` seconds, passed in. With how many tokens they do is `filling`'s part: rows that decode go
first, prompts fill what time is left over in the step (chunked prefill, as in Sarathi-Serve, Agrawal et al. 2024).

Order: the class of work, strictly, at each step. In a class priority, then deadline, then arrival, with aging. A row's
place there is the time at which it would have entered a queue without priorities: one level of priority counts for
2 * `aging` seconds, a deadline nearer than `aging` for the rest. It never changes, so rows do not take turns in pushing
each other out, and waiting is bounded: a row is overtaken only by rows of its class of a priority `p` levels higher
that enter less than (2p + 1) * `aging` seconds after it.

A row that stands out of a step because others go before it is parked: it keeps its pages, and goes on where it was. It
loses them only to a row that has too few, the least urgent first. So that a lower class never stands still it is owed
a part of the time (`turns.Dues`). That is no use to a row that loses its pages in between: the first of a lower class
that came no further for `aging` seconds gets them in the next turn of its class, whoever has them, and keeps them.
"""

from __future__ import annotations

import math
from bisect import insort
from collections import Counter
from collections.abc import Collection, Hashable, Mapping, Sequence

from .blocks import BlockManager, pages_for
from .costs import StepCost, StepLoad
from .filling import Filling
from .places import Place, StepLimits
from .steps import PAGE_TOKENS, Row, RowStep, StepPlan
from .turns import Dues, Guests

__all__ = ["StepLimits", "StepScheduler"]


class StepScheduler:
    """The rows of one model."""

    def __init__(self, blocks: BlockManager, limits: StepLimits, cost: StepCost) -> None:
        self._blocks = blocks
        self._limits = limits
        self._cost = cost
        self._places: dict[str, Place] = {}
        self._new: list[Place] = []
        self._order: list[Place] = []
        """All places but the new ones, the most urgent first."""
        self._promises: dict[Hashable, Place] = {}
        """Who will compute a page of a prefix, or a whole prompt."""
        self._added = 0
        self._dues = Dues()
        self._guests = Guests()
        self._again = math.inf

    def set_budget(self, budget: Mapping[str, float]) -> None:
        """The part of the time that each lower class gets at least; a row leaves its pages to a higher class only as
        long as it computes no more than `recompute_tokens` a second time."""
        self._dues.set(budget)
        self._again = budget.get("recompute_tokens", math.inf)

    def add(self, row: Row) -> None:
        """A row with tokens to compute, with the pages it has, if any. It enters the queue with the next plan.

        Raises ValueError: no tokens, or a row with its id is here.
        """
        if not row.tokens or row.id in self._places:
            raise ValueError(f"row {row.id} has {len(row.tokens)} tokens, or is here already")
        keep = 0 if row.all_logits else min(row.computed, len(row.tokens) - 1)
        self._blocks.truncate(row, keep)
        self._added += 1
        self._places[row.id] = place = Place(row, self._added, len(row.tokens))
        self._new.append(place)

    def remove(self, row: Row, keep: bool = False) -> None:
        """A row has ended. Its pages are released, and stay findable for a while, unless it is kept."""
        place = self._places.get(row.id)
        if place is not None and place.row is row:
            del self._places[row.id]
            self._forget_promises(place)
            (self._order if place in self._order else self._new).remove(place)
        row.generation += 1
        if row.ahead:
            row.computed, row.ahead = min(row.computed, len(row.tokens) - 1), 0
        self._blocks.truncate(row, row.computed if keep else 0)

    def defer(self, row: Row) -> None:
        """Let the others of its class go before a row: it enters the queue anew."""
        place = self._places.get(row.id)
        if place is not None and place in self._order:
            self._added += 1
            place.number = self._added
            self._order.remove(place)
            self._new.append(place)

    def plan(self, now: float) -> StepPlan:
        """The next step. Its transfers are taken from the blocks, so it has to be carried out or all rows removed."""
        self._enter(now)
        expired, refused, active = [], [], []
        ending = False
        for place in self._order:
            row, deadline = place.row, place.row.deadline
            if row.ahead and row.length >= row.most:
                ending = True  # its last token is on its way
            elif deadline is not None and deadline <= now:
                expired.append(row)
            elif pages_for(row.length) > self._blocks.pages:
                refused.append(row)
            else:
                active.append(place)
        present = Counter(place.rank for place in active)
        turn = self._dues.turn(present)
        if turn is not None:
            active.sort(key=lambda place: (place.rank != turn, not place.anchored))
        ready, preempted = self._choose(active, ending, turn, now)
        self._guests.came(present, now)
        filling = Filling(self._limits, self._cost, lambda rank: self._guests.bound(rank, now))
        steps = filling.fill(ready, present, turn)
        self._note(steps, min(present, default=0))
        for step in steps:
            self._places[step.row.id].comes_to(step.start + step.count, now)
        moved = self._blocks.take_transfers()
        return StepPlan(steps, moved.swap_out, moved.swap_in, moved.copies, preempted, expired, refused, turn)

    def _note(self, steps: Sequence[RowStep], best: int) -> None:
        """How long a step in which the highest class begins something takes without the others."""
        mine = [step for step in steps if step.row.rank == best]
        if any(step.count > 1 + step.drafts for step in mine):
            self._guests.began(best, self._cost.seconds(StepLoad.of(mine)))

    def advance(self, plan: StepPlan, ahead: Collection[Row]) -> None:
        """A plan is under way, and the next may be made before its results are known: what it computes counts as
        computed, and each of the rows in `ahead` has one more token than is known. To be followed by `settle`."""
        for step in plan.rows:
            step.row.computed = step.start + step.count
            self._blocks.publish(step.row)
        for row in ahead:
            row.ahead += 1

    def settle(self, plan: StepPlan, seconds: float) -> None:
        """The results of a plan that was under way are in; new tokens have been appended, and are not ahead any more.

        `seconds`: how long it took, 0.0 where that is not known.
        """
        for step in plan.rows:
            place = self._places.get(step.row.id)
            if place is not None and place.row is step.row:
                self._blocks.publish(step.row)
        self._observe(plan, seconds)

    def complete(self, plan: StepPlan, seconds: float, accepted: Mapping[str, int] | None = None) -> None:
        """A plan was carried out and took so long; of each row's drafts, so many were right (by the row's id).

        New tokens, and drafts that were right, have been appended to `row.tokens` by the caller.
        """
        for step in plan.rows:
            row, place = step.row, self._places.get(step.row.id)
            if place is None or place.row is not row:
                continue
            row.computed = step.start + step.count - step.drafts + (accepted or {}).get(row.id, 0)
            if step.drafts:
                self._blocks.truncate(row, row.computed)
            place.scored = max(place.scored, row.computed)
            self._blocks.publish(row)
        self._observe(plan, seconds)

    def _observe(self, plan: StepPlan, seconds: float) -> None:
        """A plan took so long: learn from it, and share the time out to the classes by tokens."""
        self._cost.observe(StepLoad.of(plan.rows), seconds)
        took: Counter[int] = Counter()
        for step in plan.rows:
            took[step.row.rank] += step.count
        tokens = max(1, took.total())
        present = {place.rank for place in self._order} | set(took)
        self._dues.spent(present, {rank: seconds * count / tokens for rank, count in took.items()}, plan.turn)

    def step_seconds(self) -> float:
        """How long the next step will take at most, as predicted."""
        most, load = self._limits.tokens, StepLoad()
        for place in [*self._order, *self._new][: self._limits.rows]:
            count = min(place.left, self._limits.chunk, most - load.tokens)
            load = load.plus(place.row.computed, count, 1) if count else load
        return self._cost.seconds(load)

    def wanted_pages(self) -> int:
        """How many pages the next step may need beyond those that rows have."""
        pages = prompts = 0
        for place in [*self._order, *self._new][: self._limits.rows]:
            row = place.row
            if place.left > 1 and not place.admitted:
                prompts += place.left
            pages += max(0, pages_for(len(row.tokens) + len(row.drafts)) - len(row.pages)) + 1
            if prompts >= self._limits.tokens:
                break
        return pages

    # ---- who takes part

    def _enter(self, now: float) -> None:
        aging = self._limits.aging
        for place in self._new:
            row, due = place.row, math.inf if place.row.deadline is None else place.row.deadline
            place.served = place.served or now
            virtual = min(now, due - aging) - 2.0 * aging * row.priority
            place.order = row.rank, virtual, due, row.arrived, place.number
            insort(self._order, place, key=lambda each: each.order)
        self._new.clear()

    def _choose(
        self, active: Sequence[Place], ending: bool, turn: int | None, now: float
    ) -> tuple[list[Place], list[Row]]:
        """The rows that have the pages to take part, most urgent first, and those that lost theirs.

        `ending`: others are about to give theirs back; `turn`: the class that goes first.
        """
        preempted: list[Row] = []
        head = active[0] if active and active[0].rank == turn else None
        if head is not None and now - head.served < self._limits.aging and not head.anchored:
            head = None
        ready, blocked = self._secured(active, turn, head, preempted)
        if blocked is not None and not ready and not ending:
            if blocked.row.pages:
                self._preempt(blocked, preempted)  # what it holds is in its own way: a page to be copied
            else:  # nobody can go on: what is protected is not any more
                for place in active:
                    place.anchored, place.again = False, -place.row.computed
                ready, _ = self._secured(active, None, None, preempted)
        return ready, preempted

    def _secured(
        self, active: Sequence[Place], turn: int | None, head: Place | None, preempted: list[Row]
    ) -> tuple[list[Place], Place | None]:
        """The rows that have the pages to take part, and the most urgent of those that have not, unless its class only
        has its turn. `head` takes pages from whoever has them."""
        ready: list[Place] = []
        blocked: Place | None = None
        waiting = 0
        for at, place in enumerate(active):
            if len(ready) == self._limits.rows:
                break
            if place.row in preempted:
                blocked = blocked or place
                continue
            if not place.admitted and (waiting >= self._limits.tokens or self._awaits(place)):
                continue
            if blocked is not None and self._waits_for(blocked, place):
                continue
            spare = min(len(ready), self._blocks.pages // 8)
            if self._secure(place, active[at + 1 :], spare, place is head, preempted):
                ready.append(place)
                place.anchored = place.anchored or place is head
                waiting += place.left if place.left > 1 else 0
            elif blocked is None and place.rank != turn:
                blocked = place
        return ready, blocked

    def _waits_for(self, blocked: Place, place: Place) -> bool:
        """Whether a row would take pages that a more urgent one is waiting for."""
        if not place.row.pages:
            return True
        return self._yields(place, blocked, False) and self._blocks.need(place.row, place.left) > 0

    def _secure(
        self, place: Place, later: Sequence[Place], spare: int, first: bool, preempted: list[Row]
    ) -> bool:
        """Get a row all pages for its tokens, if need be from rows that come `later`, the last of them first; `first`:
        of higher classes too.

        A row that has none yet leaves `spare` pages to those that have; else they would soon push it out again.
        """
        row, blocks = place.row, self._blocks
        wanted = len(row.drafts) if place.decodes else 0
        place.drafts = wanted if blocks.need(row, place.left + wanted) <= blocks.available else 0
        spare = 0 if place.admitted else spare
        count = place.left + place.drafts
        if blocks.need(row, count) + spare > blocks.available:
            holders = [each for each in later if each.row.pages and self._yields(each, place, first)]
            possible = blocks.available + blocks.reclaimable(each.row for each in holders)
            if blocks.need(row, count) + spare > possible + bool(row.pages):  # a page it shares may need no copy then
                return False
            while holders and blocks.need(row, count) + spare > blocks.available:
                self._preempt(holders.pop(), preempted)
        if blocks.need(row, count) + spare > blocks.available:
            return False
        if not place.admitted:
            self._admit(place)
        return blocks.grow(row, place.left + place.drafts)

    def _yields(self, holder: Place, place: Place, first: bool) -> bool:
        """Whether a row that holds pages gives them to one that stands before it now; `first`: to one of a lower class
        too."""
        if holder.rank < place.rank:
            return first
        if holder.rank == place.rank:
            return True
        return not holder.anchored and (self._moves(holder) or holder.again + holder.row.computed <= self._again)

    def _moves(self, place: Place) -> bool:
        """Whether a row's pages go to host memory: that is quicker than to compute them again, and there is room."""
        row, cost = place.row, self._cost
        again = cost.seconds(StepLoad().plus(0, row.computed, 0)) if row.computed else 0.0
        pages = pages_for(row.computed)
        return 2.0 * cost.swap_seconds(pages) < again and pages <= self._blocks.host_pages - self._blocks.host_used

    def _admit(self, place: Place) -> None:
        """Give a row what is computed of it already, and let others wait for what it will compute."""
        row, blocks = place.row, self._blocks
        if row.host_pages:
            blocks.swap_in(row)
        elif not row.pages:
            twin = self._promises.get(self._rest(row)) if blocks.caching else None
            if twin is not None and twin.row.computed >= len(row.tokens) - 1 and not row.all_logits:
                blocks.share(twin.row, row, len(row.tokens) - 1)
            else:
                blocks.attach(row)
        if not place.counted:
            row.cached, place.counted = row.computed, True
        full = range(row.computed // PAGE_TOKENS, len(row.tokens) // PAGE_TOKENS)
        place.promised = [*(blocks.key(row, page) for page in full), self._rest(row)]
        for promise in place.promised:
            self._promises.setdefault(promise, place)
        place.admitted = True

    def _awaits(self, place: Place) -> bool:
        """Whether a more urgent row is about to compute what this one would have to compute next."""
        row, blocks = place.row, self._blocks
        if row.pages or row.host_pages or row.all_logits or not blocks.caching:
            return False
        found, full = len(blocks.prefix(row)), (len(row.tokens) - 1) // PAGE_TOKENS
        end = (found + 1) * PAGE_TOKENS if found < full else len(row.tokens) - 1
        leader = self._promises.get(blocks.key(row, found) if found < full else self._rest(row))
        return leader is not None and leader.order < place.order and leader.row.computed < end

    def _rest(self, row: Row) -> Hashable:
        """What stands for a whole prompt: all that cannot be found in full pages, and what it follows."""
        full = (len(row.tokens) - 1) // PAGE_TOKENS
        before = self._blocks.key(row, full - 1) if full else row.salt
        return before, tuple(row.tokens[full * PAGE_TOKENS :])

    def _preempt(self, place: Place, preempted: list[Row]) -> None:
        """Take a row's pages, to host memory if they may go there."""
        row = place.row
        if not self._moves(place) or not self._blocks.swap_out(row):
            place.again += row.computed
            self._blocks.release(row)
        self._forget_promises(place)
        place.admitted = place.anchored = False
        preempted.append(row)

    def _forget_promises(self, place: Place) -> None:
        for promise in place.promised:
            if self._promises.get(promise) is place:
                del self._promises[promise]
        place.promised = []
