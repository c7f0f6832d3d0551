"""Hot swap: another version of a model is loaded beside the one that runs, then takes its place.

New requests move over at once; the old weights leave when the last request that runs on them has ended.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmos.syscalls.driver import HostLoad, HostUnload, Located
from llmos.syscalls.errors import BadState, Busy, LlmosError, NotSupported

from .locating import locate, release, tell_measured
from .objects import ModelObject
from .recipes import names_of, predicted
from .speed import Speed
from .supervisor import Driver

if TYPE_CHECKING:
    from .core import Kernel
    from .requests import Request


class SwapService:
    """Swaps, and the old weights that are still in use."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._retired: dict[str, tuple[Driver, Located, Driver]] = {}

    async def swap(self, request: Request, model: ModelObject, to: str) -> None:
        """Exchange it for the version or alias `to`; see `exchange`."""
        await self.exchange(request, model, f"{model.path.partition('@')[0]}@{to}")

    async def exchange(self, request: Request, model: ModelObject, path: str) -> None:
        """Load what `path` is beside the running one, then move new requests over; running ones finish on the old."""
        kernel = self._kernel
        self._check(model)
        files, located = await locate(self._kernel, request.session, path, model.options.draft)
        host_id = kernel.new_id("w")
        loaded = None
        try:
            plan = await kernel.models.plan(model.driver, located, model.options, host_id)
            room = await kernel.rooms.make(model, host_id, predicted(plan.rows), may_wait=False)
            assert model.driver.link is not None
            call = HostLoad(id=host_id, model=located, options=model.options)
            loaded = await model.driver.link.call(
                call, lambda told: request.progress(told.done, told.total, told.unit, told.stage)
            )
            self._check(model)
        except LlmosError:
            if loaded is not None and model.driver.link is not None:
                model.driver.link.call(HostUnload(id=host_id))
            kernel.ledger.release(host_id)
            release(files, located)
            raise
        old = model.host_id
        self._retired[old] = (model.files, model.located, model.driver)
        tell_measured(model)
        model.host_id, model.speed = host_id, Speed()
        versions = f"{model.name} went from version {model.version} to {located.version}"
        swapped = f"{versions}: {request.session.program!r} asked for it ({request.session.id})"
        model.why = [request.because("model.swapped", swapped), room]
        kernel.log("model", swapped, model.id, model.why)
        model.files, model.located, model.loaded = files, located, loaded
        model.version, model.path = located.version, path
        kernel.residency.exchanged(model.id, located.path, located.version)
        kernel.holdings.contexts_lost(model, "its model was swapped")
        kernel.models.let_run(model)
        self.request_left(old)

    def _check(self, model: ModelObject) -> None:
        """Raises NotSupported, BadState, Busy, NotFound."""
        self._kernel.models.check(model)
        if tuned := self._kernel.tunes.on(model):
            raise Busy(f"{model.name} is busy: {', '.join(tuned)} works with it; wait for that, or cancel it")
        if model.base is not None:
            raise NotSupported("an adapter is replaced by load_model(replace=True)", why="swap is for whole models")
        if not self._kernel.models.ready_to_run(model):
            raise BadState(f"{model.name} is {model.status}; wake it first", state=model.status)
        if adapters := self._kernel.models.adapters_of(model):
            raise Busy(f"{model.name} has adapters: {names_of(adapters)}; unload them first")

    def request_left(self, host_id: str) -> None:
        """A request has ended on these weights: drop them if they were only kept for it."""
        retired = self._retired.get(host_id)
        if retired is None or self._kernel.users[host_id]:
            return
        files, located, driver = self._retired.pop(host_id)
        self._kernel.ledger.release(host_id)
        release(files, located)
        assert driver.link is not None  # `device_lost` forgets what a lost device kept
        driver.link.call(HostUnload(id=host_id))

    def device_lost(self, driver: Driver) -> None:
        """What it kept of old weights is gone with it."""
        for host_id, (files, located, on) in list(self._retired.items()):
            if on is driver:
                del self._retired[host_id]
                release(files, located)
