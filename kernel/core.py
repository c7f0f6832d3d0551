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
from llmos.syscalls.types import Event, Handle, Kind, ObjectInfo, Reason, Rights, Sampling

from llmos.syscalls.wire import PROTOCOL

from .arbiter.policies import policy_named
from .advice.decisions import Decisions
from .advising import Advisor
from .alarms import AlarmService
from .buffers import BufferPool
from .children import Watcher
from .config import KernelConfig
from .console import Console
from .cooling import Cooling
from .discovery import DEVICES, FILESYSTEMS, discover, thread_budget
from .dispatch import Dispatcher
from .eviction import Rooms
from .files import FileService
from .handles import Entry, HandleTable
from .handlers import HANDLERS
from .idling import put_idle_to_sleep
from .inference import InferenceService
from .instruments import Instruments
from .journal import Journal
from .ledger import Ledger
from .memory.host import HostMemory, Source
from .memory.machine import Machine
from .models import ModelService
from .holdings import Holdings
from .objects import ContextObject, DeviceObject, DriverObject, EventKind, KernelObject, ModelObject, SystemObject
from .observing import DriverObserver
from .pending import Runner
from .quota import QuotaService
from .requests import Request
from .residency import Residency
from .scheduler import Scheduler, Start
from .services import Services
from .session import Session
from .sharing import SharingService
from .sessions import SessionService
from .swaps import SwapService
from .tasks import TaskService
from .transforms import TransformService
from .tunes.service import TuneService
from .yielding import tell_who_yields
from .supervisor import Driver, Supervisor

VERSION = "0.1.0"
Send = Callable[[bytes, Sequence[bytes]], bool]


class Kernel:
    """Everything the kernel knows. One instance per process (or per test)."""

    def __init__(
        self,
        config: KernelConfig,
        runner: Runner,
        watcher: Watcher,
        wall: Callable[[], float],
        send_client: Send,
        machine: Source | None = None,
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
        self.decisions = Decisions(self.journal, wall)
        self.handles = HandleTable()
        self.ledger = Ledger()
        self.residency = Residency(policy_named(config.memory.policy, config.memory.models))
        self.scheduler = Scheduler()
        self._bound_queues()
        self.buffers = BufferPool(config.paths.buffers, self.uid)
        self.objects: dict[str, KernelObject] = {}
        self.requests: dict[str, Request] = {}
        self.routes: dict[bytes, Session] = {}
        self.dirty: list[Session] = []
        self.started: dict[str, int] = {}
        self.users: Counter[str] = Counter()
        self.watchers: dict[str, Request] = {}
        self.draining = False
        self.missing: list[str] = []
        """What is said of drivers that are wanted and that nobody announces."""
        self._pumping = False
        environ = {**os.environ, "LLMOS_HOME": str(config.paths.home)}
        self.observer = DriverObserver(self)
        self.supervisor = Supervisor(runner, watcher, self.journal, self.observer, environ, wall, self.pid)
        self.memory = HostMemory(self, machine or Machine())
        self.holdings = Holdings(self)
        self.rooms = Rooms(self)
        self.cooling = Cooling(self)
        self.models = ModelService(self)
        self.swaps = SwapService(self)
        self.quotas = QuotaService(self)
        self.sharing = SharingService(self)
        self.inference = InferenceService(self)
        self.sessions = SessionService(self)
        self.files = FileService(self)
        self.transforms = TransformService(self)
        self.tasks = TaskService(self)
        self.tunes = TuneService(self)
        self.services = Services(self)
        self.alarms = AlarmService(self)
        self.advisor = Advisor(self)
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
        self.tunes.boot()

    # ---- ids, journal, events

    def new_id(self, prefix: str) -> str:
        """A stable id that no other run of the kernel gives."""
        return f"{prefix}-{self.boot}-{next(self._ids)}"

    def log(self, unit: str, text: str, about: str = "", reasons: Sequence[Reason] = (), level: str = "info") -> None:
        self.journal.write(unit, level, text, about, reasons)

    def reason(self, code: str, text: str, rule: str = "", **numbers: float | int | str) -> Reason:
        return self.decisions.complete(Reason(code=code, text=text, numbers=numbers, rule=rule))

    def stamp(self, reason: Reason) -> Reason:
        """A decision of a pure policy, which knows no wall clock, with the time it was taken."""
        return self.decisions.complete(reason)

    def decide(self, about: Sequence[str], reason: Reason, level: str = "info", see: Sequence[str] = ()) -> Reason:
        """Keep a decision for `why`, with the ids of what it is about; see `Decisions.decide`."""
        return self.decisions.decide(about, reason, level, see)

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

    def _bound_queues(self) -> None:
        limits = self.config.limits
        self.scheduler.set_limits(limits.queued_requests, int(limits.aging_s * 1e9), int(limits.queue_s * 1e9))

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
                self.decide([request.id], decision.reason, "debug")
                self.interrupt(request, TimedOut(decision.reason.text))
        self._pumping = False
        self.sharing.look()

    def _start(self, decision: Start, now: int) -> None:
        ticket = decision.ticket
        self.decisions.note((ticket.id,), decision.reason)
        tell_who_yields(self, decision)
        self.residency.begin(ticket.lane, now)
        self.started[ticket.id] = now
        self.instruments.queued.observe((now - ticket.arrived_ns) / 1e9)
        turn = self.inference.turns.get(ticket.id)
        if turn is None:
            self.inference.left(ticket.id)
        else:
            turn.set(None)

    def flush(self) -> None:
        """Send the stream items of this turn of the loop, one frame for each program."""
        for session in self.dirty:
            session.flush()
        self.dirty.clear()

    # ---- time

    def tick(self, now: int) -> None:
        """What is done about once a second."""
        for model in self.models.by_id.values():
            model.speed.sample(now)
        self.memory.tick()
        put_idle_to_sleep(self, now)
        self.cooling.tick()
        self.tunes.tick(now)
        self.rooms.look_everywhere()
        self.alarms.tick(now)
        self.advisor.tick(now)
        self.journal.flush()
        self.sessions.probe(now)

    def drain(self) -> None:
        """Accept no new sessions and stop the hosts; what runs may finish for `drain_s` seconds, if anything does."""
        self.draining = True
        self.services.stop()
        self.tasks.kill_all()
        self.tunes.drain()
        busy = bool(self.scheduler.running()) or self.tunes.busy
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
        """Take over limits, memory, policy, alerts and the gateway from a configuration read again; the rest needs a
        restart of the kernel. Sessions whose limits were set on their own keep those."""
        following = self.sessions.with_limits_of_policy()
        self.config = msgspec.structs.replace(
            self.config, limits=config.limits, memory=config.memory, policies=config.policies, gateway=config.gateway,
            alerts=config.alerts,
        )  # fmt: skip
        self.residency.policy = policy_named(config.memory.policy, config.memory.models)
        self.alarms.reload(config.alerts)
        self._bound_queues()
        self.sessions.take_limits_of_policy(following)
        self.quotas.reload()
        self.services.reload()
        self.log("kernel", "limits and policy were read again")

    def close(self) -> None:
        """Kill what is left of ours, then give back files and the journal."""
        for driver in self.supervisor.running:
            self.supervisor.kill_now(driver)
        self.tasks.kill_now()
        self.services.kill_now()
        self.alarms.sender.kill_now()
        for session in list(self.sessions.by_id.values()):
            self.sessions.close(session, "the kernel has stopped")
        self.buffers.close()
        self.journal.write("kernel", "info", "the kernel has stopped")
        self.journal.close()
