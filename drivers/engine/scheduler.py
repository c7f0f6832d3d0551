"""Which rows take part in the next step of a paged model, and with how many tokens.

Pure: time is `time.monotonic` seconds, passed in. Rows that decode go first, prompts fill what time is left over in
the step (chunked prefill, as in Sarathi-Serve, Agrawal et al. 2024).

Order: priority, then deadline, then arrival, with aging. A row's place is the time at which it would have entered a
queue without priorities: one level of priority counts for 2 * `aging` seconds, a deadline nearer than `aging` for the
rest. It never changes, so rows do not take turns in pushing each other out, and waiting is bounded: a row is overtaken
only by rows of a priority `p` levels higher that enter less than (2p + 1) * `aging` seconds after it.
"""

from __future__ import annotations

import math
from bisect import insort
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field

from .blocks import BlockManager, pages_for
from .costs import StepCost, StepLoad
from .steps import PAGE_TOKENS, Row, RowStep, StepPlan


@dataclass(frozen=True)
class StepLimits:
    """Bounds of one step.

    At most `rows` and `tokens` in all, `chunk` tokens of one prompt. While rows decode, prompts may stretch a step to
    `stretch` times what it takes without them and no further than `seconds`, but `least` tokens of one always go.
    `stretch` is for streams that have found their pace, with `settled` tokens. While they are fewer than the others,
    who wait or have just begun, it does not count: they would hold up most of those who are there, and decode as a
    small batch meanwhile.
    """

    rows: int = 64
    tokens: int = 576
    chunk: int = 512
    least: int = 4
    seconds: float = 2.0
    stretch: float = 1.5
    settled: int = 8
    aging: float = 30.0

    def __post_init__(self) -> None:
        if not (self.rows >= 1 and 1 <= self.least <= self.chunk and self.rows + self.least <= self.tokens):
            needs = "a row, a token of a prompt beside all rows, and chunks no smaller than that"
            raise ValueError(f"{self} is too little: a step needs {needs}")


@dataclass(eq=False)
class Place:
    """A row in the queue."""

    row: Row
    number: int
    prompt: int
    order: tuple[float, float, int, int] = (0.0, 0.0, 0, 0)
    admitted: bool = False
    """It has its pages, as far as they were cached, and has promised to compute the rest."""
    counted: bool = False
    """`row.cached` has been told."""
    drafts: int = 0
    """How many drafts there are pages for in this step."""
    scored: int = 0
    """Of how many first tokens the logits were given."""
    promised: list[Hashable] = field(default_factory=list)

    @property
    def left(self) -> int:
        """Tokens to be computed."""
        row = self.row
        return len(row.tokens) + row.ahead - row.computed

    @property
    def decodes(self) -> bool:
        """Somebody waits for its next token, which takes only one to be computed."""
        return self.left == 1 and self.row.length > self.prompt


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
        ready, preempted = self._choose(active, ending)
        steps = self._fill(ready, min(len(active), self._limits.rows))
        moved = self._blocks.take_transfers()
        return StepPlan(steps, moved.swap_out, moved.swap_in, moved.copies, preempted, expired, refused)

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
        self._cost.observe(StepLoad.of(plan.rows), seconds)

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
        self._cost.observe(StepLoad.of(plan.rows), seconds)

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
            virtual = min(now, due - aging) - 2.0 * aging * row.priority
            place.order = virtual, due, row.arrived, place.number
            insort(self._order, place, key=lambda each: each.order)
        self._new.clear()

    def _choose(self, active: Sequence[Place], ending: bool) -> tuple[list[Place], list[Row]]:
        """The rows that have the pages to take part, most urgent first, and those that lost theirs.

        `ending`: others are about to give theirs back.
        """
        ready: list[Place] = []
        preempted: list[Row] = []
        blocked: Place | None = None
        waiting = 0
        for at, place in enumerate(active):
            if len(ready) == self._limits.rows or place.row in preempted:
                break
            if not place.admitted and (waiting >= self._limits.tokens or self._awaits(place)):
                continue
            if blocked is not None and (not place.row.pages or self._blocks.need(place.row, place.left)):
                continue
            if self._secure(place, active[at + 1 :], min(len(ready), self._blocks.pages // 8), preempted):
                ready.append(place)
                waiting += place.left if place.left > 1 else 0
            elif blocked is None:
                blocked = place
        if blocked is not None and blocked.row.pages and not ready and not ending:
            self._preempt(blocked, preempted)  # what it holds is in its own way: a page to be copied
        return ready, preempted

    def _secure(self, place: Place, later: Sequence[Place], spare: int, preempted: list[Row]) -> bool:
        """Get a row all pages for its tokens, if need be from less urgent rows.

        A row that has none yet leaves `spare` pages to those that have; else they would soon push it out again.
        """
        row, blocks = place.row, self._blocks
        wanted = len(row.drafts) if place.decodes else 0
        place.drafts = wanted if blocks.need(row, place.left + wanted) <= blocks.available else 0
        spare = 0 if place.admitted else spare
        count = place.left + place.drafts
        if blocks.need(row, count) + spare > blocks.available:
            holders = [each for each in later if each.row.pages]
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
        """Take a row's pages: to host memory where that is quicker than to compute them again, and there is room."""
        row, cost = place.row, self._cost
        again = cost.seconds(StepLoad().plus(0, row.computed, 0)) if row.computed else 0.0
        if 2.0 * cost.swap_seconds(pages_for(row.computed)) >= again or not self._blocks.swap_out(row):
            self._blocks.release(row)
        self._forget_promises(place)
        place.admitted = False
        preempted.append(row)

    def _forget_promises(self, place: Place) -> None:
        for promise in place.promised:
            if self._promises.get(promise) is place:
                del self._promises[promise]
        place.promised = []

    # ---- with how many tokens

    def _fill(self, ready: Sequence[Place], present: int) -> list[RowStep]:
        """Rows that decode with one token and drafts; then prompts, as far as time and tokens go.

        So many rows are there, with or without pages.
        """
        limits, cost = self._limits, self._cost
        decoding = [place for place in ready if place.decodes]
        prompts = [place for place in ready if not place.decodes]
        steps: list[RowStep] = []
        guesses = limits.tokens - len(decoding) - (limits.least if prompts else 0)
        for place in decoding:
            drafts = min(place.drafts, guesses)
            guesses -= drafts
            steps.append(RowStep(place.row, place.row.computed, 1 + drafts, 1 + drafts, drafts))
        load = StepLoad.of(steps)
        settled = sum(len(place.row.tokens) - place.prompt >= limits.settled for place in decoding)
        stretch = limits.stretch if 2 * settled >= present else math.inf
        bound = min(stretch * cost.seconds(load), limits.seconds) if decoding else math.inf
        for place in prompts:
            row, every = place.row, place.row.all_logits and place.row.computed >= place.scored
            most = min(place.left, limits.chunk, limits.tokens - load.tokens)
            if place.row.all_logits and not every:
                most = min(most, place.scored - row.computed)  # computed again: nobody asks for these any more
            count = cost.fitting(load, row.computed, most, bound, every)
            if len(steps) == len(decoding):
                count = max(count, min(most, limits.least))
            if count == 0:
                break
            steps.append(RowStep(row, row.computed, count, count if every else int(count == place.left)))
            load = load.plus(row.computed, count, steps[-1].logits)
        return steps
