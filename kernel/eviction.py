"""Room on a device for a model's bytes or a lease: free at once, made by idle models that sleep, or waited for.

Whoever needs room waits in a queue, one for each device, in the order of requests: work class, priority, arrival, and
who has waited too long before all others. The first makes room: idle models are put to sleep in the order of the
policy; when they are not enough but busy ones would be, those are *drained*: they start no more requests, and sleep
when what runs has ended. Models with work of a higher class are drained only for who has waited too long. A model that
has just become ready is left alone for a while first, so that two that do not fit together take turns instead of
driving each other out. Refused at once is what would not fit even then, and a lease for which idle models alone are not
enough.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from msgspec.structs import replace

from llmos.syscalls.errors import BadState, Busy, LlmosError, NoDeviceMemory, PeerGone
from llmos.syscalls.types import Reason

from .lane import CLASS_RANK, Rank
from .ledger import HOST, LEASE, count_text, size_text
from .pending import Future
from .residency import Drain, Sleep

if TYPE_CHECKING:
    from .core import Kernel
    from .objects import ModelObject
    from .supervisor import Driver


BEST: Rank = (0, 0)
LAST: Rank = (len(CLASS_RANK), 0)


@dataclass(eq=False, slots=True)
class _Want:
    """Room on a device for `owner`, weights of a model, a lease or a task, of exactly these bytes by use."""

    driver: Driver
    id: str
    """Of the model, lease or task."""
    name: str
    owner: str
    sizes: Mapping[str, int]
    since: int
    look: Future[None]
    """Done when it is worth looking again."""
    model: ModelObject | None = None
    """None for a lease or task."""
    may_wait: bool = False
    told: bool = False
    alarm: int = 0
    """When to look again even if nothing happens."""

    @property
    def kept(self) -> set[str]:
        """Models that must not leave for it: itself, and the base that it is an adapter of."""
        base = self.model.base if self.model is not None else None
        return {self.id} | ({base.id} if base is not None else set())


class Rooms:
    """Who waits for room, and which models are drained for whom."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._queues: dict[str, list[_Want]] = {}
        self._drained: dict[str, str] = {}
        """Models that start no requests, with the one that they make room for."""

    async def make(self, model: ModelObject, owner: str, sizes: Mapping[str, int], may_wait: bool = True) -> Reason:
        """Promise `owner`, weights of the model, exactly these bytes (by use); what must sleep for it is told why.

        Raises:
            NoDeviceMemory: not even all models that may leave hold enough; or with `may_wait` not set, not the idle
                ones; or nobody waits for the model any more.
            PeerGone: its driver has ended meanwhile.
        """
        runner = self._kernel.runner
        want = _Want(model.driver, model.id, model.name, owner, sizes, runner.clock(), runner.future(), model, may_wait)
        return await self._promised(want)

    async def lease(self, driver: Driver, lease: str, name: str, bytes: int) -> Reason:
        """Promise bytes to a lease; idle models sleep for it, busy ones are not waited for.

        Raises:
            NoDeviceMemory: not even all idle models that may leave hold enough.
            PeerGone: the driver has ended meanwhile.
        """
        return await self.admit(driver, lease, name, {LEASE: bytes})

    async def admit(self, driver: Driver, owner: str, name: str, sizes: Mapping[str, int]) -> Reason:
        """Promise bytes (by use) to what is no model; idle models sleep for it, busy ones are not waited for.

        Raises:
            NoDeviceMemory, PeerGone: as `lease`.
        """
        runner = self._kernel.runner
        want = _Want(driver, owner, name, owner, sizes, runner.clock(), runner.future())
        return await self._promised(want)

    async def _promised(self, want: _Want) -> Reason:
        queue = self._queues.setdefault(want.driver.name, [])
        queue.append(want)
        try:
            while True:
                if self._first(queue) is want and (granted := await self._try(want)) is not None:
                    return granted
                want.look = self._kernel.runner.future()
                await want.look
        finally:
            queue.remove(want)
            self._let_go(want.id)
            self.look(want.driver.name)

    def look(self, device: str) -> None:
        """Something has changed on a device: the first of its queue looks again."""
        if queue := self._queues.get(device):
            self._first(queue).look.set(None)

    def _first(self, queue: Sequence[_Want]) -> _Want:
        def order(want: _Want) -> tuple[bool, Rank, int]:
            aged = self._aged(want)
            return not aged, BEST if aged else self._rank(want), want.since

        return min(queue, key=order)

    def _aged(self, want: _Want) -> bool:
        return self._kernel.runner.clock() - want.since > self._kernel.config.limits.aging_s * 1e9

    def _rank(self, want: _Want) -> Rank:
        """The best of who waits for the model; behind them what nobody waits for, as after a crash."""
        if want.model is None or not want.may_wait:
            return BEST  # it takes its turn and is done
        asked = (request.call for request in want.model.watchers if not request.finished)
        ranks = [(CLASS_RANK[call.work_class], -call.priority) for call in asked]
        return min([*ranks, *self._ranks(want.model)], default=LAST)

    def _ranks(self, model: ModelObject) -> list[Rank]:
        """Of the requests that wait or run on a model and its adapters."""
        scheduler = self._kernel.scheduler
        parts = [each.id for each in self._kernel.models.family(model)]
        return [ticket.rank for id in parts for ticket in (*scheduler.waiting(id), *scheduler.running(id))]

    def look_everywhere(self) -> None:
        """For what nobody tells: leases and other programs that end, requests that are given up."""
        for device in self._queues:
            self.look(device)

    def device_lost(self, driver: Driver, cause: str) -> None:
        """Nobody waits for room on a device that has ended."""
        for want in self._queues.get(driver.name, ()):
            want.look.fail(PeerGone(f"driver {driver.name} ended: {cause}"))
        for id in list(self._drained):
            drained = self._kernel.models.by_id.get(id)
            if drained is None or drained.driver is driver:
                del self._drained[id]

    async def _try(self, want: _Want) -> Reason | None:
        """The room, when it is there or can be made now; None when it has to be waited for."""
        kernel, device = self._kernel, want.driver.name
        while True:
            if want.driver.link is None:
                raise PeerGone(f"driver {device} has ended")
            if self._first(self._queues[device]) is not want:
                return None  # while it made room somebody came who goes first
            self.say_who_may_leave()
            now = kernel.runner.clock()
            rivals = kernel.residency.rivals(want.id, now) if want.model is not None else []
            idle = [each for each in rivals if isinstance(each, Sleep)]
            idle = idle or kernel.residency.victims(device, 0, now, want.kept)
            if idle:
                await self._evict(idle, want, None)
                continue
            if rivals:
                self._check_wanted(want, rivals)
                self._drain([each for each in rivals if isinstance(each, Drain)], want, now)
                return None
            try:
                return self._granted(want, kernel.ledger.resize(device, want.owner, want.sizes))
            except NoDeviceMemory as error:
                refusal = _with_hint(error, want.sizes)
            short = refusal.needed - refusal.free
            if idle := kernel.residency.victims(device, short, now, want.kept):
                await self._evict(idle, want, refusal)
                continue
            if HOST in kernel.ledger.pool(device) and await self._cool(want, refusal):
                continue
            self._check_worth(want, refusal, short)
            self._drain(kernel.residency.drains(device, short, now, want.kept), want, now)
            return None

    async def _cool(self, want: _Want, refusal: NoDeviceMemory) -> bool:
        """On a device that shares the machine's memory, what sleeps can make room too; whether anything did."""
        return await self._kernel.cooling.make(refusal.needed, f"it makes room for {want.name}")

    def say_who_may_leave(self) -> None:
        """Tell the ledger whose bytes eviction could free, for its numbers."""
        for each in self._kernel.models.by_id.values():
            self._kernel.ledger.set_evictable(each.host_id, self._kernel.residency.evictable(each.id))

    def _granted(self, want: _Want, reason: Reason) -> Reason:
        if want.model is not None and want.owner == want.model.host_id:  # else of weights that will take its place
            self._kernel.residency.granted(want.id, sum(want.sizes.values()))
        return self._kernel.stamp(reason)

    def _check_worth(self, want: _Want, refusal: NoDeviceMemory, short: int) -> None:
        """Raises the refusal when waiting is of no use, or of no use to anybody."""
        kernel, device = self._kernel, want.driver.name
        if self._wanted(want) and kernel.residency.movable(device, want.kept) >= short:
            return
        kernel.decide([want.id, device], Reason(code="memory.refused", text=refusal.text, numbers=_numbers(refusal)))
        raise refusal

    def _check_wanted(self, want: _Want, rivals: Sequence[Sleep | Drain]) -> None:
        """Raises Busy when nobody waits any more for what would have to wait until its rivals have left."""
        if not self._wanted(want):
            names = ", ".join(self._kernel.models.by_id[each.model].name for each in rivals)
            raise Busy(f"{want.name} may not be awake beside {names}, and nobody waits for it any more")

    def _wanted(self, want: _Want) -> bool:
        """Whether somebody waits for what may wait."""
        if want.model is None or not want.may_wait:
            return False
        waiting = any(self._kernel.scheduler.waiting(each.id) for each in self._kernel.models.family(want.model))
        return waiting or any(not request.finished for request in want.model.watchers)

    async def _evict(self, victims: Sequence[Sleep], want: _Want, refusal: NoDeviceMemory | None) -> None:
        kernel = self._kernel
        for victim in victims:
            idle = kernel.models.by_id.get(victim.model)
            if idle is None:
                continue  # it was unloaded while another one was put to sleep
            text = f"it makes room for {want.name}: {victim.reason.text}"
            reason = kernel.stamp(replace(victim.reason, text=text))
            kernel.decide([idle.id, want.id, idle.driver.name], reason)
            try:
                await kernel.models.sleep(idle, reason)
            except LlmosError as error:
                if self._changed(idle, error):
                    return  # who leaves is decided anew
                if refusal is None or isinstance(error, PeerGone):
                    raise
                raise refusal from None
            self._wake_later(idle)

    def _changed(self, idle: ModelObject, error: LlmosError) -> bool:
        """Whether a model could not be put to sleep since it is in use again, or gone."""
        kernel = self._kernel
        if idle.id not in kernel.models.by_id:
            return True
        return isinstance(error, BadState) and not kernel.residency.evictable(idle.id)

    def _wake_later(self, model: ModelObject) -> None:
        """Requests that it was drained of are still to be served: it waits for room in its turn."""
        for each in self._kernel.models.family(model):
            if waiting := self._kernel.scheduler.waiting(each.id):
                self._kernel.inference.make_ready(each, self._kernel.requests[waiting[0].id])

    def _drain(self, drains: Sequence[Drain], want: _Want, now: int) -> None:
        kernel = self._kernel
        turn = want.since + int(kernel.config.limits.aging_s * 1e9) + 1
        for each in drains:
            busy = kernel.models.by_id[each.model]
            higher = not self._aged(want) and min(self._ranks(busy), default=LAST)[0] < self._rank(want)[0]
            after = max(each.after, turn) if higher else each.after
            if after > now:
                self._look_at(want, after, now)
            elif each.model not in self._drained:
                self._drained[each.model] = want.id
                for part in kernel.models.family(busy):
                    if part.loaded is not None:
                        kernel.scheduler.set_lane(part.id, part.loaded.slots, open=False)
                text = f"{busy.name} starts no more requests until {want.name} has room: {each.reason.text}"
                numbers = {**each.reason.numbers, "running": each.running}
                reason = Reason(code="model.draining", text=text, numbers=numbers, rule=each.reason.rule)
                kernel.decide([each.model, want.id], reason)
        if drains and want.model is not None and not want.told:
            want.told = True
            busy_names = ", ".join(kernel.models.by_id[each.model].name for each in drains)
            running = sum(each.running for each in drains)
            text = f"{want.name} waits for room: {count_text(running, 'request')} under way on {busy_names}"
            reason = kernel.reason("memory.waits", text, running=running)
            want.model.why = [*want.model.why, reason]
            kernel.decide([want.id, want.driver.name], reason)

    def _look_at(self, want: _Want, when: int, now: int) -> None:
        if not now < want.alarm <= when:
            want.alarm = when
            self._kernel.runner.at(when, lambda: self.look(want.driver.name))

    def _let_go(self, model: str) -> None:
        """What was drained for a model and is still awake takes requests again."""
        for id in [id for id, whom in self._drained.items() if whom == model]:
            del self._drained[id]
            drained = self._kernel.models.by_id.get(id)
            for each in self._kernel.models.family(drained) if drained is not None else ():
                if self._kernel.models.ready_to_run(each):
                    self._kernel.models.let_run(each)


def _with_hint(refusal: NoDeviceMemory, sizes: Mapping[str, int]) -> NoDeviceMemory:
    if sizes.get("kv"):
        refusal.text += f"; a smaller max_context would need fewer than these {size_text(sizes['kv'])} of kv"
    return refusal


def _numbers(refusal: NoDeviceMemory) -> dict[str, int | float | str]:
    return {"needed": refusal.needed, "free": refusal.free, "evictable": refusal.evictable}
