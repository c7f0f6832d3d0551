"""When memory is short: models that sleep leave the machine's memory too, and idle ones make room for other programs.

A model that is *cold* keeps its name, its handles and its place in the catalogue; the next request loads it from its
files.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from llmos.syscalls.driver import HostUnload
from llmos.syscalls.errors import BadState, LlmosError
from llmos.syscalls.types import Reason

from .ledger import HOST, size_text
from .residency import Event, Sleep, State

if TYPE_CHECKING:
    from .core import Kernel
    from .objects import ModelObject

LASTING = 3
"""Looks, about a second apart, after which a shortage is no mere moment of it."""


class Cooling:
    """Frees memory that is short: of the machine, and of devices whose promised bytes others have taken."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._short: dict[str, int] = {}
        """For how many looks in a row a device was short."""
        self._busy = False

    def tick(self) -> None:
        """Look at all devices; about once a second."""
        ledger = self._kernel.ledger
        for device in ledger.devices():
            self._short[device] = self._short.get(device, 0) + 1 if ledger.excess(device) else 0
        lasting = [device for device, looks in self._short.items() if looks >= LASTING]
        if lasting and not self._busy:
            self._busy = True
            self._kernel.runner.spawn(self._relieve(lasting), self._relieved)

    async def chill(self, model: ModelObject, reason: Reason) -> None:
        """Take a model that sleeps, or is idle, out of all memory.

        Raises:
            BadState: it is neither.
        """
        kernel = self._kernel
        state = kernel.residency.state(model.id)
        if state is not State.ASLEEP and not kernel.residency.evictable(model.id):
            raise BadState(f"{model.name} is {state.value} and in use", state=state.value)
        leaving = [each for each in kernel.models.adapters_of(model) if kernel.residency.state(each.id) is state]
        leaving.append(model)
        for each in leaving:
            kernel.models.event(each, Event.UNLOAD)
        kernel.log("model", f"{model.name} leaves memory: {reason.text}", model.id, [reason])
        link = model.driver.link
        assert link is not None
        done = kernel.models.begin(leaving)
        try:
            for each in leaving:
                await link.call(HostUnload(id=each.host_id))
        finally:  # what a device keeps that failed to unload them is told by what it measures
            kernel.models.ended(leaving)
            done.set(model)
            for each in leaving:
                kernel.ledger.release(each.host_id)
                each.host_id = kernel.new_id("w")
                kernel.holdings.contexts_lost(each, "its model left memory")
                each.why = [reason]
        kernel.instruments.evictions.labels(reason.code).inc()
        kernel.rooms.look(model.driver.name)

    async def make(self, needed: int, why: str) -> bool:
        """Take models that sleep out of the machine's memory until so many bytes are free there or in its pool;
        whether any left."""
        kernel = self._kernel
        short = needed - kernel.ledger.free(HOST)
        left = False
        for each in kernel.residency.cooling(self._held(), short, kernel.runner.clock()):
            model = kernel.models.by_id.get(each.model)
            if model is None or kernel.residency.state(model.id) is not State.ASLEEP or model.loading is not None:
                continue
            reason = kernel.stamp(replace(each.reason, text=f"{why}: {each.reason.text}"))
            kernel.decide([model.id, HOST], reason)
            try:
                await self.chill(model, reason)
            except LlmosError as error:  # it is of another device than who needs the room, or that has ended too
                kernel.log("memory", f"{model.name} has not left memory by itself: {error}", model.id, level="warning")
            left = True
        return left

    async def has_place(self, model: ModelObject) -> bool:
        """Whether a model that goes to sleep finds room in the machine's memory; others that sleep may leave for it."""
        kernel = self._kernel
        needed = self._resting(model)
        if needed > kernel.ledger.free(HOST):
            await self.make(needed, f"{model.name} goes to sleep")
        return needed <= kernel.ledger.free(HOST)

    def slept(self, model: ModelObject) -> None:
        """Remember what it holds of the machine's memory now."""
        model.resting = self._held().get(model.id, 0)

    def _resting(self, model: ModelObject) -> int:
        """What it will hold there: as the last time, else its weights; nothing where they are there already."""
        if model.resting is not None:
            return model.resting
        if HOST in self._kernel.ledger.pool(model.driver.name):
            return 0
        rows = self._kernel.ledger.rows(model.driver.name)
        return sum(row.ledger for row in rows if row.owner == model.host_id and row.what == "weights")

    async def _relieve(self, devices: list[str]) -> None:
        kernel = self._kernel
        for device in devices:
            excess = kernel.ledger.excess(device)
            if not excess:
                continue
            why = f"{size_text(excess)} of {device} that were promised are taken by others"
            if HOST in kernel.ledger.pool(device) and await self.make(kernel.ledger.free(HOST) + excess, why):
                continue
            for each in self._idle(device, excess):
                model = kernel.models.by_id.get(each.model)
                if model is None:
                    continue  # it was unloaded while another one fell asleep
                reason = kernel.stamp(replace(each.reason, code="memory.excess", text=f"{why}: {each.reason.text}"))
                kernel.decide([model.id, model.driver.name], reason)
                await kernel.models.sleep(model, reason)

    def _idle(self, device: str, excess: int) -> list[Sleep]:
        """Idle models whose sleep gives the bytes; as much as they can when that is not enough."""
        residency, now = self._kernel.residency, self._kernel.runner.clock()
        pool = self._kernel.ledger.pool(device)
        for each in pool:
            bytes_there = residency.idle_bytes(each)
            if bytes_there:
                return residency.victims(each, min(excess, bytes_there), now)
        return []

    def _relieved(self, _value: object, error: LlmosError | None) -> None:
        self._busy = False
        if error is not None:
            self._kernel.log("memory", f"room could not be made: {error}", level="warning")

    def _held(self) -> dict[str, int]:
        """What models that sleep hold of the machine's memory."""
        held: dict[str, int] = {}
        for row in self._kernel.ledger.rows(HOST):
            held[row.owner] = held.get(row.owner, 0) + row.ledger
        models = self._kernel.models.by_id.values()
        return {model.id: held[model.host_id] for model in models if held.get(model.host_id)}
