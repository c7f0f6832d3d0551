"""Loaded models: planned, admitted, loaded, put to sleep, reloaded after a crash, unloaded.

A model object keeps its id and handles through all of that. What changes is its `host_id`, the name under which a host
knows one set of weights; `swaps` exchanges one set for another.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from llmos.syscalls.driver import HostLoad, HostPlan, HostSleep, HostUnload, HostWake, Located
from llmos.syscalls.errors import (
    Busy, Exists, LlmosError, NoDeviceMemory, NotFound, NotSupported, OverQuota, PeerGone, Unavailable,
)  # fmt: skip
from llmos.syscalls.types import Kind, LoadOptions, Plan, Reason

from .arbiter.history import Way
from .ledger import HOST
from .locating import locate, locate_at, release, tell_measured
from .memory.corrections import Corrections
from .memory.rows import awake, settle
from .objects import ModelObject
from .pending import Future
from .recipes import extra_slots, model_name, owned, paths, predicted, recipe, tell, watch, what
from .residency import Event, State
from .supervisor import Driver
from .unloading import unload

if TYPE_CHECKING:
    from .core import Kernel
    from .requests import Request

NO_ROOM = (NoDeviceMemory, OverQuota, Busy)
"""Nothing is wrong with a model that could not be loaded for one of these: it may be when others have left."""


class ModelService:
    """Everything about models but running them."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self.by_id: dict[str, ModelObject] = {}
        self.corrections = Corrections()

    # ---- finding

    def named(self, name: str) -> ModelObject | None:
        """The model of that name; one that is being replaced still has it too, but the newest counts."""
        return next((m for m in reversed(self.by_id.values()) if m.name == name), None)

    def adapters_of(self, model: ModelObject) -> list[ModelObject]:
        return [m for m in self.by_id.values() if m.base is model]

    def family(self, model: ModelObject) -> list[ModelObject]:
        """A model with its adapters."""
        return [model, *self.adapters_of(model)]

    # ---- loading

    async def plan(self, driver: Driver, located: Located, options: LoadOptions, host_id: str) -> Plan:
        """What the model would take on the device, and whether that is free now."""
        await self._kernel.supervisor.wait_ready(driver)
        assert driver.link is not None
        answer = await driver.link.call(HostPlan(model=located, options=options))
        planned = [owned(row, driver.name, host_id) for row in answer.rows]
        rows, reasons = self.corrections.apply(what(driver.name, located, options), planned)
        needed = sum(row.predicted for row in rows)
        free = self._kernel.ledger.free(driver.name)
        return Plan(rows=rows, fits=needed <= free, needed=needed, free=free, reasons=reasons)

    async def load(
        self, request: Request, driver: Driver, options: LoadOptions, base: ModelObject | None, path: str
    ) -> tuple[ModelObject, bool]:
        """Load, or join the load or the loaded model of the same recipe; whether it was made."""
        name = model_name(options.name, path)
        files, located = await locate(self._kernel, request.session, path, options.draft)
        known = self.same(driver, located, options, base)
        if known is not None:
            release(files, located)
            if known.loading is not None:
                request.because("load.shared", f"{known.name} is being loaded already; waiting for it")
                watch(known, request)
                await known.loading
            await self.wake(known, request)
            return known, False
        holder = self.named(name)
        if holder is not None and holder.loading is not None:
            release(files, located)
            raise Unavailable(f"{name} is {holder.status}; try again when that is done", retry_after_ms=1000)
        if holder is not None and not options.replace:
            release(files, located)
            raise Exists(
                f"the name {name!r} belongs to {holder.path} on {holder.driver.name}; "
                "give another name, or take it over: replace=True (at the command line: --replace)"
            )
        model = self.create(request.session.owner, driver, files, located, options, base, name, path)
        await self._loaded(model, holder, request)
        return model, True

    async def newer(self, holder: ModelObject) -> ModelObject:
        """Load what the path of a loaded model means now beside it, by its name; it leaves once its requests are
        answered. Raises what finding and loading raise: it then serves on."""
        place, options = holder.located, replace(holder.options, name=holder.name, replace=True)
        files, located = await locate_at(self._kernel, holder.files.name, place.source, place.path, holder.path)
        of = holder.owner, holder.driver, files, located, options, holder.base, holder.name, holder.path
        model = self.create(*of)
        await self._loaded(model, holder, None)
        return model

    async def _loaded(self, model: ModelObject, holder: ModelObject | None, request: Request | None) -> None:
        """Load a model that was just taken up, and have who `holder` was of its name leave."""
        model.loading = self._kernel.runner.future()
        watch(model, request)
        self._kernel.runner.spawn(self._bring_up(model), lambda _value, error: self._came_up(model, error, holder))
        await model.loading

    def create(
        self, owner: str, driver: Driver, files: Driver, located: Located, options: LoadOptions,
        base: ModelObject | None, name: str, path: str,
    ) -> ModelObject:  # fmt: skip
        """Take up a model, cold."""
        kernel = self._kernel
        model = ModelObject(
            id=kernel.new_id("m"), kind=Kind.MODEL, name=name, owner=owner, since=kernel.wall(),
            path=path, version=located.version, driver=driver, files=files, located=located, options=options, base=base,
        )  # fmt: skip
        model.host_id = kernel.new_id("w")
        self.by_id[model.id] = model
        kernel.objects[model.id] = model
        kernel.residency.add(
            model.id, driver.name, kernel.runner.clock(), options.keep_alive, options.pin, path=located.path,
            version=located.version, group=options.group, base=base.id if base is not None else "",
        )  # fmt: skip
        return model

    async def _bring_up(self, model: ModelObject) -> None:
        """Plan, admit and load the weights of a model whose state is cold, lost or failed."""
        kernel = self._kernel
        if kernel.residency.state(model.id) is State.FAILED:
            for each in self.adapters_of(model):
                self._renew(each)
            self._renew(model)
        self.event(model, Event.LOAD)
        await self._place(model)
        base = model.base.host_id if model.base is not None else ""
        call = HostLoad(id=model.host_id, model=model.located, options=model.options, base=base)
        started = kernel.runner.clock()
        assert model.driver.link is not None  # room is given only while it runs
        model.loaded = await model.driver.link.call(call, lambda progress: tell(model, progress))
        model.speed.load_s = (kernel.runner.clock() - started) / 1e9
        kernel.instruments.load_seconds.observe(model.speed.load_s)
        self._open(model, "load", "loaded", started)

    async def _place(self, model: ModelObject) -> None:
        """Have room for a model that is loaded, and its base awake."""
        kernel = self._kernel
        while True:
            await kernel.supervisor.wait_ready(model.driver)
            if model.base is not None:
                await self.wake(model.base)
            plan = await self.plan(model.driver, model.located, model.options, model.host_id)
            await self._room(model, plan)
            if model.base is None or self.ready_to_run(model.base):
                return
            kernel.ledger.release(model.host_id)  # while it waited for room, its base had to leave
            kernel.residency.granted(model.id, 0)

    async def _room(self, model: ModelObject, plan: Plan) -> None:
        """Have the bytes of a plan promised; once they are, what the plan was corrected by counts as planned."""
        kernel, sizes = self._kernel, predicted(plan.rows)
        before = {row.what: row.ledger for row in kernel.ledger.rows(model.driver.name) if row.owner == model.host_id}
        kernel.quotas.check_bytes(model.owner, plan.needed, model.name, without=model.host_id)
        for adapter in self._with(model):
            sizes["weights"] = sizes.get("weights", 0) + sum(predicted(adapter.rows()).values())
        model.why = [*model.why, await kernel.rooms.make(model, model.host_id, sizes)]
        try:  # others of the same owner may have come meanwhile
            kernel.quotas.check_bytes(model.owner, plan.needed, model.name, without=model.host_id)
        except OverQuota:
            kernel.ledger.lower(model.driver.name, model.host_id, {use: before.get(use, 0) for use in sizes})
            kernel.residency.granted(model.id, 0)
            raise
        self.corrections.loaded(what(model.driver.name, model.located, model.options))

    def _came_up(self, model: ModelObject, error: LlmosError | None, replaced: ModelObject | None) -> None:
        waiting, model.loading = model.loading, None
        model.watchers.clear()
        assert waiting is not None
        if error is None:
            waiting.set(model)
            if replaced is not None and replaced.id in self.by_id:
                leaving = unload(self._kernel, replaced, force=False, drain=True)
                self._kernel.runner.spawn(leaving, lambda _value, _error: None)
            return
        self.event(model, Event.LOAD_FAILED)
        self._kernel.log("model", f"{model.name} could not be loaded: {error}", model.id, level="warning")
        self.forget(model, error)
        waiting.fail(error)

    def same(
        self, driver: Driver, located: Located, options: LoadOptions, base: ModelObject | None
    ) -> ModelObject | None:
        """The model that such a load would join."""
        wanted = (driver.name, located.path, located.version, paths(located), recipe(options), base)
        for model in self.by_id.values():
            files = paths(model.located)
            mine = (model.driver.name, model.located.path, model.version, files, recipe(model.options), model.base)
            if mine == wanted and (not options.name or options.name == model.name):
                return model
        return None

    def _open(self, model: ModelObject, way: Way, how: str, started: int) -> None:
        """Its weights are on the device: say so, and let requests run."""
        self.event(model, Event.LOADED)
        seconds = (self._kernel.runner.clock() - started) / 1e9
        self._kernel.instruments.model_load.labels(model.name).observe(seconds)
        text = f"{model.name} is {how} on {model.driver.name} in {seconds:.2f} s"
        self._kernel.log("model", text, model.id, model.reasons())
        self.let_run(model)
        self._kernel.residency.measured(model.id, way, seconds)

    def let_run(self, model: ModelObject) -> None:
        """Its weights are on the device: requests may start."""
        assert model.loaded is not None
        awake(self._kernel, model, model.loaded.rows)
        size = sum(row.predicted for row in model.loaded.rows if row.device != HOST)
        self._kernel.residency.set_bytes(model.id, size)
        slots, extra = model.loaded.slots, extra_slots(model)
        self._kernel.scheduler.set_lane(model.id, slots, device=model.driver.name, extra=extra)
        self._kernel.pump()

    # ---- unloading

    def forget(self, model: ModelObject, error: LlmosError) -> None:
        """Remove the object, its handles and its waiting requests; the bytes are the caller's matter."""
        kernel = self._kernel
        self.by_id.pop(model.id, None)
        for ticket in kernel.scheduler.drop_lane(model.id).waiting:
            kernel.interrupt(kernel.requests[ticket.id], error)
        kernel.holdings.contexts_lost(model, "its model was unloaded")
        kernel.residency.drop(model.id)
        if model.loaded is None:
            kernel.ledger.release(model.host_id)
        tell_measured(model)
        release(model.files, model.located)
        kernel.remove_object(model)
        if self.named(model.name) is None:
            kernel.instruments.forget_model(model.name)
        kernel.emit("model", model.id, name=model.name, state="unloaded")
        kernel.rooms.look(model.driver.name)

    # ---- sleep, wake

    async def sleep(self, model: ModelObject, reason: Reason) -> None:
        """Free the device bytes, its adapters' too. Raises BadState when it is not awake or requests run, NotSupported
        for an adapter.

        Where it finds no place in the machine's memory it goes cold instead. Callers at the same time share one sleep.
        """
        if model.falling is None or model.falling.done:
            model.falling = self._kernel.runner.detached(self._fall_asleep(model, reason))
        await model.falling

    async def _fall_asleep(self, model: ModelObject, reason: Reason) -> None:
        kernel = self._kernel
        if model.base is not None:
            why = f"it shares the weights of {model.base.name}, and sleeps and wakes with that"
            raise NotSupported(f"{model.name} is an adapter: {why}", why=why)
        if not await kernel.cooling.has_place(model):
            await kernel.cooling.chill(model, reason)
            return
        falling = [model, *(each for each in self.adapters_of(model) if self.ready_to_run(each))]
        for each in falling:
            self.event(each, Event.SLEEP)
        kernel.log("model", f"{model.name} is put to sleep: {reason.text}", model.id, [reason])
        assert model.driver.link is not None
        done = self.begin(falling)
        try:
            asleep = await model.driver.link.call(HostSleep(id=model.host_id, host_bytes=kernel.ledger.free(HOST)))
        except LlmosError:
            for each in falling:
                if kernel.residency.state(each.id) is State.SLEEPING:
                    self.event(each, Event.SLEEP_FAILED)
                    self.let_run(each)
            raise
        finally:
            self.ended(falling)
            done.set(model)
        settle(kernel, model, asleep.rows)
        kernel.cooling.slept(model)
        kernel.instruments.evictions.labels(reason.code).inc()
        for each in falling:
            if each is not model:
                kernel.ledger.release(each.host_id)
            kernel.holdings.contexts_lost(each, "its model was put to sleep", but=asleep.contexts)
            each.why = [reason]
            tell_measured(each)
            self.event(each, Event.SLEPT)

    def begin(self, models: Sequence[ModelObject]) -> Future[Any]:
        """Models that are on the device leave it: nothing more starts on them, and who wants them waits."""
        done = self._kernel.runner.future()
        for each in models:
            assert each.loaded is not None
            self._kernel.scheduler.set_lane(each.id, each.loaded.slots, open=False)
            each.loading = done
        return done

    def ended(self, models: Sequence[ModelObject]) -> None:
        """They are where they were going, or are not going there any more."""
        for each in models:
            each.loading = None

    async def wake(self, model: ModelObject, request: Request | None = None) -> None:
        """Make a model that is asleep, lost or failed ready again; callers at the same time share one wake."""
        kernel = self._kernel
        while model.loading is not None:
            watch(model, request)
            await model.loading
            if model.driver.link is None:
                raise PeerGone(f"driver {model.driver.name} has ended")
        self.check(model)
        state = kernel.residency.state(model.id)
        if state is State.AWAKE:
            return
        if model.base is not None and state is State.ASLEEP:
            await self.wake(model.base, request)
            return
        who = f"{request.session.program!r} needs it ({request.id})" if request is not None else "its driver is back"
        model.why = [kernel.reason("model.waking", f"{model.name} was {state.value} and is made ready: {who}")]
        kernel.log("model", model.why[0].text, model.id, model.why)
        model.loading = kernel.runner.future()
        for each in self.adapters_of(model):
            if kernel.residency.state(each.id) is State.ASLEEP:
                each.loading = model.loading
        watch(model, request)
        steps = self._wake_weights(model) if state is State.ASLEEP else self._bring_up(model)
        kernel.runner.spawn(steps, lambda _value, error: self._woke(model, error))
        await model.loading

    def _with(self, model: ModelObject) -> list[ModelObject]:
        """The adapters that wake with it now."""
        return [each for each in self.adapters_of(model) if each.loading is not None and each.loading is model.loading]

    async def _wake_weights(self, model: ModelObject) -> None:
        kernel = self._kernel
        plan = await self.plan(model.driver, model.located, model.options, model.host_id)
        await self._room(model, plan)
        waking = [model, *self._with(model)]
        for each in waking:
            self.event(each, Event.WAKE)
        started = kernel.runner.clock()
        assert model.driver.link is not None
        model.loaded = await model.driver.link.call(HostWake(id=model.host_id), lambda progress: tell(model, progress))
        for each in waking[1:]:
            kernel.ledger.move(model.driver.name, (model.host_id, "weights"), each.host_id, predicted(each.rows()))
        for each in waking:
            self._open(each, "wake", "awake again", started)

    def _woke(self, model: ModelObject, error: LlmosError | None) -> None:
        waking, waiting = [model, *self._with(model)], model.loading
        self.ended(waking)
        model.watchers.clear()
        assert waiting is not None
        if error is None:
            waiting.set(model)
            self._wake_group(model)
            return
        for each in reversed(waking):
            self._not_woken(each, error)
        waiting.fail(error)

    def _not_woken(self, model: ModelObject, error: LlmosError) -> None:
        loading = self._kernel.residency.state(model.id) is State.LOADING
        if isinstance(error, PeerGone):  # what waits goes on waiting for the next start
            if loading:
                self.event(model, Event.LOST)
            return
        if loading:
            no_room = isinstance(error, NO_ROOM)
            self.event(model, Event.NO_ROOM if no_room else Event.LOAD_FAILED)
            model.why = [self._kernel.reason("model.cold" if no_room else "load.failed", str(error))]
            self._kernel.ledger.release(model.host_id)
            if no_room:
                self._renew(model)
        why = model.why if loading else ()
        self._kernel.log("model", f"{model.name} is {model.status}: {error}", model.id, why, "warning")
        for ticket in self._kernel.scheduler.waiting(model.id):
            self._kernel.interrupt(self._kernel.requests[ticket.id], error)

    def _renew(self, model: ModelObject) -> None:
        """Whatever its driver may still have of the weights is dropped there; the next load goes by another id."""
        if model.driver.link is not None:
            model.driver.link.call(HostUnload(id=model.host_id))
        model.host_id = self._kernel.new_id("w")

    def _wake_group(self, model: ModelObject) -> None:
        """What is to be awake together with a model that woke is made ready too."""
        for each in self._kernel.residency.companions(model.id):
            if self.by_id[each].loading is None:
                self._kernel.runner.spawn(self.wake(self.by_id[each]), lambda _value, _error: None)

    def event(self, model: ModelObject, event: Event) -> None:
        """Something happened to where a model is: say so. Raises BadState."""
        state = self._kernel.residency.event(model.id, event, self._kernel.runner.clock())
        model.status = state.value
        self._kernel.emit("model", model.id, name=model.name, state=state.value)
        self._kernel.rooms.look(model.driver.name)

    def ready_to_run(self, model: ModelObject) -> bool:
        return model.status == State.AWAKE.value

    def check(self, model: ModelObject) -> None:
        """Raises Unavailable when the object has ended while a request was on its way to it."""
        if model.id not in self.by_id:
            raise NotFound(f"{model.name} is not loaded any more")
        if model.driver.link is None:
            raise Unavailable(f"driver {model.driver.name} is restarting", retry_after_ms=1000)
