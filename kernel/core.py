"""The kernel's tables and what holds them together: sessions, objects, requests, drivers, models.

It does no input or output of its own: messages come in through `Dispatcher.receive` and `Supervisor.message`, frames
leave through the two send functions it is given, and the loop in `server` gives it time.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

import msgspec

from llmos.syscalls.describe import suggest
from llmos.syscalls.errors import Cancelled, LlmosError, NotFound, OverQuota, TimedOut
from llmos.syscalls.events import CACHE_USAGE, HostEvent, Memory, MetricEvent, Spent
from llmos.syscalls.types import Event, Handle, Kind, ObjectInfo, Reason, Rights, Sampling

from llmos.syscalls.wire import PROTOCOL

from .buffers import BufferPool
from .children import Watcher
from .config import KernelConfig
from .console import Console
from .discovery import DEVICES, FILESYSTEMS, discover, thread_budget
from .dispatch import Dispatcher
from .eviction import put_idle_to_sleep
from .files import FileService
from .handles import Entry, HandleTable
from .handlers import HANDLERS
from .inference import InferenceService
from .instruments import Instruments
from .journal import Journal
from .ledger import Ledger
from .models import ModelService
from .holdings import Holdings
from .objects import ContextObject, DeviceObject, DriverObject, EventKind, KernelObject, ModelObject, SystemObject
from .pending import Runner
from .quota import TokenBucket
from .requests import Request
from .residency import Residency
from .scheduler import Scheduler, Start
from .services import Services
from .session import Session
from .sessions import SessionService
from .tasks import TaskService
from .transforms import TransformService
from .supervisor import Driver, DriverState, Observer, Supervisor

VERSION = "0.1.0"
Send = Callable[[bytes, Sequence[bytes]], bool]


class Kernel(Observer):
    """Everything the kernel knows. One instance per process (or per test)."""

    def __init__(
        self,
        config: KernelConfig,
        runner: Runner,
        watcher: Watcher,
        wall: Callable[[], float],
        send_client: Send,
    ) -> None:
        self.config = config
        self.runner = runner
        self.watcher = watcher
        self.wall = wall
        self.send_client = send_client
        self.boot = os.urandom(3).hex()
        self.pid = os.getpid()
        self.uid = os.getuid()
        self._ids = count(1)
        self.instruments = Instruments()
        journal = config.journal
        self.journal = Journal(journal.ring, journal.path, wall, Console(2, journal.level), journal.max_bytes)
        self.handles = HandleTable()
        self.ledger = Ledger()
        self.residency = Residency()
        self.scheduler = Scheduler(config.limits.queued_requests, int(config.limits.aging_s * 1e9))
        self.buffers = BufferPool(config.paths.buffers, self.uid)
        self.objects: dict[str, KernelObject] = {}
        self.requests: dict[str, Request] = {}
        self.routes: dict[bytes, Session] = {}
        self.dirty: list[Session] = []
        self.started: dict[str, int] = {}
        self.users: Counter[str] = Counter()
        self.buckets: dict[str, TokenBucket] = {}
        self.watchers: dict[str, Request] = {}
        self.draining = False
        self.missing: list[str] = []
        """What is said of drivers that are wanted and that nobody announces."""
        self._pumping = False
        environ = {**os.environ, "LLMOS_HOME": str(config.paths.home)}
        self.supervisor = Supervisor(runner, watcher, self.journal, self, environ, wall, self.pid)
        self.holdings = Holdings(self)
        self.models = ModelService(self)
        self.inference = InferenceService(self)
        self.sessions = SessionService(self)
        self.files = FileService(self)
        self.transforms = TransformService(self)
        self.tasks = TaskService(self)
        self.services = Services(self)
        self.dispatcher = Dispatcher(self, HANDLERS)
        self.no_sampling = Sampling()
        self._add(SystemObject(id="system", kind=Kind.SYSTEM, name="system", facts=self.facts()))
        self._find_drivers()

    def _find_drivers(self) -> None:
        """Announce the drivers; hosts start when `start_drivers` says so, devices can be named at once."""
        found, unknown = discover(self.config.drivers.load)
        for name in unknown:
            hint = suggest(name, [known for known, _group in discover(None)[0]])
            self.missing.append(f"no package announces a driver {name!r} ({hint})")
            self.log("supervisor", f"{self.missing[-1]}; it is left out", name, level="warning")
        drivers = self.config.drivers
        devices = {name: drivers.of(name).threads for name, group in found if group == DEVICES}
        threads = thread_budget(devices, len(os.sched_getaffinity(0)))
        for name, group in found:
            driver = self.supervisor.add(name, group, drivers.of(name), threads.get(name, 1))
            self._add(DriverObject(id=f"driver:{name}", kind=Kind.DRIVER, name=name, driver=driver))
            if group == DEVICES:
                self._add(DeviceObject(id=f"device:{name}", kind=Kind.DEVICE, name=name, driver=driver))
                self.ledger.set_device(name, 0)

    def facts(self) -> dict[str, Any]:
        """What `stat` of the system shows."""
        return {
            "version": VERSION,
            "protocol": PROTOCOL,
            "pid": self.pid,
            "uid": self.uid,
            "boot": self.boot,
            "home": str(self.config.paths.home),
            "runtime": str(self.config.paths.runtime),
            "shared": self.config.listen.shared,
        }

    def start_drivers(self) -> None:
        for driver in self.supervisor.drivers.values():
            self.supervisor.start(driver)
        self.services.start()

    # ---- ids, journal, events

    def new_id(self, prefix: str) -> str:
        """A stable id that no other run of the kernel gives."""
        return f"{prefix}-{self.boot}-{next(self._ids)}"

    def log(self, unit: str, text: str, about: str = "", reasons: Sequence[Reason] = (), level: str = "info") -> None:
        self.journal.write(unit, level, text, about, reasons)

    def reason(self, code: str, text: str, rule: str = "", **numbers: float | int | str) -> Reason:
        return Reason(code=code, text=text, numbers=numbers, rule=rule, at=self.wall())

    def stamp(self, reason: Reason) -> Reason:
        """A decision of a pure policy, which knows no wall clock, with the time it was taken."""
        return msgspec.structs.replace(reason, at=self.wall())

    def emit(self, kind: EventKind, about: str, **fields: object) -> None:
        """Tell everybody who watches."""
        if self.watchers:
            event = Event(kind=kind, about=about, at=self.wall(), fields=fields)
            for request in list(self.watchers.values()):
                call = request.call
                if (not call.kinds or kind in call.kinds) and call.about in ("", about):
                    request.offer(event)

    def metrics_call(self, name: str) -> None:
        self.instruments.calls.labels(name).inc()

    def metrics_error(self, name: str, error: str) -> None:
        self.instruments.errors.labels(name, error).inc()

    # ---- objects and handles

    def _add(self, found: KernelObject) -> None:
        found.since = found.since or self.wall()
        self.objects[found.id] = found

    def add_object(self, found: KernelObject, session: Session, rights: Rights) -> Handle:
        """Take up an object that a session made, and give it the first handle.

        Raises:
            OverQuota: the session has no handle left; the object has ended, and with it what it held.
        """
        self._add(found)
        try:
            self.sessions.check_handles(session)
        except OverQuota:
            self.sessions.end_object(found)
            self.objects.pop(found.id, None)
            raise
        return self.handles.create(session.id, found.kind, found.id, rights)

    def remove_object(self, found: KernelObject) -> None:
        """Forget an object and close every handle to it."""
        self.objects.pop(found.id, None)
        for entry in self.handles.close_object(found.id):
            self.sessions.forget_root(entry)

    def object_of(self, entry: Entry) -> KernelObject:
        try:
            return self.objects[entry.object]
        except KeyError:
            raise NotFound(f"{entry.object} has ended") from None

    def driver_object(self, name: str) -> DriverObject:
        found = self.objects[f"driver:{name}"]
        assert isinstance(found, DriverObject)
        return found

    def filesystem(self, name: str, path: str) -> Driver:
        driver = self.supervisor.drivers.get(name)
        if driver is None or driver.group != FILESYSTEMS:
            known = [driver.name for driver in self.supervisor.drivers.values() if driver.group == FILESYSTEMS]
            hint = suggest(name, known) if known else "none is loaded"
            raise NotFound(f"{path}: there is no filesystem driver {name!r}; {hint}")
        return driver

    def model_of(self, entry: Entry) -> ModelObject:
        found = self.object_of(entry)
        assert isinstance(found, ModelObject)
        return found

    def context_of(self, entry: Entry) -> ContextObject:
        found = self.object_of(entry)
        assert isinstance(found, ContextObject)
        return found

    def describe(self, found: KernelObject) -> ObjectInfo:
        """An object as it is now, with the figures that the ledger and residency keep of it."""
        info = found.describe()
        if isinstance(found, SystemObject):
            info.fields["gateway"] = self.services.url
        elif isinstance(found, DeviceObject):
            info.fields["free"] = self.ledger.free(found.name)
        elif isinstance(found, ModelObject):
            info.fields["pinned"] = self.residency.pinned(found.id)
            info.fields["running"] = len(self.scheduler.running(found.id))
            info.fields["waiting"] = len(self.scheduler.waiting(found.id))
            info = msgspec.structs.replace(info, bytes=self.ledger.held(found.host_id))
        return info

    def describe_request(self, request: Request) -> dict[str, Any]:
        """A request in flight, and why it waits."""
        waits = self.scheduler.explain(request.id, self.runner.clock())
        return {
            "id": request.id,
            "call": request.spec.name,
            "session": request.session.id,
            "seconds": (self.runner.clock() - request.arrived) / 1e9,
            "state": "waiting" if waits is not None else "running",
            "reasons": [*request.reasons, *([waits] if waits is not None else [])],
        }

    # ---- requests

    def interrupt(self, request: Request, error: LlmosError) -> None:
        """End a request with an error; what runs for it on a driver is told to stop."""
        if request.finished:
            return
        if request.job is None:  # its handler is in its first step, which this is called from
            self.runner.after(0, lambda: self.interrupt(request, error))
            return
        if request.on_cancel is not None:
            request.on_cancel()
        self.runner.interrupt(request.job, error)

    def request_done(self, request: Request) -> None:
        self.requests.pop(request.id, None)
        self.watchers.pop(request.id, None)
        self.started.pop(request.id, None)
        for waiting in request.ended:
            waiting.set(None)
        seconds = (self.runner.clock() - request.arrived) / 1e9
        self.instruments.seconds.labels(request.spec.name).observe(seconds)

    def pump(self) -> None:
        """Start what the scheduler lets start."""
        if self._pumping:
            return
        self._pumping = True
        now = self.runner.clock()
        for decision in self.scheduler.next(now):
            request = self.requests.get(decision.ticket.id)
            if isinstance(decision, Start):
                self._start(decision, now)
            elif request is not None:
                self.interrupt(request, TimedOut(decision.reason.text))
        self._pumping = False

    def _start(self, decision: Start, now: int) -> None:
        ticket = decision.ticket
        self.residency.begin(ticket.lane, now)
        self.started[ticket.id] = now
        self.instruments.queued.observe((now - ticket.arrived_ns) / 1e9)
        turn = self.inference.turns.get(ticket.id)
        if turn is None:
            self.inference.left(ticket.id)
        else:
            turn.set(None)

    def quota(self, session: Session) -> TokenBucket:
        """The owner's tokens per minute, shared by all its sessions."""
        return self.sessions.bucket(session)

    def flush(self) -> None:
        """Send the stream items of this turn of the loop, one frame for each program."""
        for session in self.dirty:
            session.flush()
        self.dirty.clear()

    # ---- drivers (Observer)

    def driver_changed(self, driver: Driver, reasons: Sequence[Reason]) -> None:
        self.instruments.restarts.labels(driver.name).set(driver.policy.restarts)
        kind: EventKind = "device" if driver.is_device else "driver"
        self.emit(kind, driver.name, state=driver.state.value, reason=reasons[0].text if reasons else "")

    def driver_ready(self, driver: Driver) -> None:
        if driver.facts is not None:
            self.ledger.set_device(driver.name, driver.facts.memory_bytes)
            self.ledger.set_foreign(driver.name, driver.facts.foreign_bytes)
            self.models.device_ready(driver)

    def driver_lost(self, driver: Driver, cause: str) -> None:
        if driver.is_device:
            self.models.device_lost(driver, cause)
            self.ledger.release_device(driver.name)
            if driver.state in (DriverState.FAILED, DriverState.STOPPED):
                self.models.device_gone(driver, self.supervisor.failure(driver))

    def driver_event(self, driver: Driver, event: HostEvent) -> None:
        if isinstance(event, Memory):
            self.ledger.reconcile(driver.name, event.rows)
            self.ledger.set_foreign(driver.name, event.foreign_bytes)
        elif isinstance(event, MetricEvent):
            self._take_figures(driver, event)
        elif isinstance(event, Spent):
            self.instruments.spent_ns.labels(driver.name, event.work_class, event.tenant).inc(event.device_ns)

    def _take_figures(self, driver: Driver, event: MetricEvent) -> None:
        for name, value in event.values.items():
            if name == CACHE_USAGE:
                for model in self.models.by_id.values():
                    if model.host_id == event.about:
                        self.instruments.kv_usage.labels(model.name).set(value)
            else:
                self.instruments.driver_values.labels(driver.name, event.about, name).set(value)

    # ---- time

    def tick(self, now: int) -> None:
        """What is done about once a second."""
        for model in self.models.by_id.values():
            model.speed.sample(now)
        put_idle_to_sleep(self, now)
        self.journal.flush()
        self.sessions.probe(now)

    def drain(self) -> None:
        """Accept no new sessions and stop the hosts; what runs may finish for `drain_s` seconds, if anything does."""
        self.draining = True
        self.services.stop()
        self.tasks.kill_all()
        busy = bool(self.scheduler.running())
        for driver in self.supervisor.drivers.values():
            self.supervisor.stop(driver, self.config.limits.drain_s if busy else 0.0)

    def end_requests(self) -> None:
        """The kernel ends: answer what still waits for something."""
        for request in list(self.requests.values()):
            self.interrupt(request, Cancelled(f"{request.spec.name}: the kernel has stopped"))
        self.runner.run(self.runner.clock())
        self.flush()

    @property
    def idle(self) -> bool:
        """Nothing of ours is left running."""
        return not self.supervisor.running and not self.tasks.running and not self.services.running

    def reload(self, config: KernelConfig) -> None:
        """Take over limits, policy and the gateway from a configuration read again; the rest needs a restart of the
        kernel."""
        self.config = msgspec.structs.replace(
            self.config, limits=config.limits, policies=config.policies, gateway=config.gateway
        )
        self.services.reload()
        self.log("kernel", "limits and policy were read again; sessions that are open keep theirs")

    def close(self) -> None:
        """Kill what is left of ours, then give back files and the journal."""
        for driver in self.supervisor.running:
            self.supervisor.kill_now(driver)
        self.tasks.kill_now()
        self.services.kill_now()
        for session in list(self.sessions.by_id.values()):
            self.sessions.close(session, "the kernel has stopped")
        self.buffers.close()
        self.journal.write("kernel", "info", "the kernel has stopped")
        self.journal.close()
