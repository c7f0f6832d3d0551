"""Driver hosts: found by metadata, spawned, watched, killed when stuck, restarted by policy.

A host is its process: when a step goes wrong the process ends and a new one takes its place. The supervisor never
imports a driver; it reads entry-point metadata, so a broken plug-in can harm its own host only.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from llmos.syscalls.driver import HostDrain, HostManifest, HostStart
from llmos.syscalls.errors import BadState, DriverFailed, LlmosError, NotFound
from llmos.syscalls.events import Beat, DeviceFacts, Fault, HostEvent, Ready
from llmos.syscalls.types import Number, Reason

from .config import DriverConfig
from .channel import Channel
from .children import KILL_AFTER_S, Child, Watcher, exit_text
from .discovery import DEVICES
from .journal import Journal
from .link import Garbage, Link
from .pending import Future, Runner, Timer
from .restart import GiveUp, RestartPolicy

ON_REQUEST = "restarted on request"
SPIN_COUNT = "20000"
"""How often an idle thread of libgomp looks for work before it sleeps (GOMP_SPINCOUNT): about 0.3 ms, longer than the
time between two ops of a step and far shorter than a time slice. See docs/benchmarks/README.md."""


class DriverState(StrEnum):
    STOPPED = "stopped"
    STARTING = "starting"
    READY = "ready"
    SUSPECT = "suspect"
    BACKOFF = "backoff"
    STOPPING = "stopping"
    FAILED = "failed"


UP = frozenset({DriverState.READY, DriverState.SUSPECT})


@dataclass
class Driver:
    """One driver and, while it runs, its host."""

    name: str
    group: str
    settings: DriverConfig
    threads: int
    policy: RestartPolicy
    state: DriverState = DriverState.STOPPED
    child: Child | None = None
    link: Link | None = None
    channel: Channel | None = None
    facts: DeviceFacts | None = None
    beat: Beat = field(default_factory=lambda: Beat(seq=0, steps=0))
    verdict: str = ""
    """Why the host that runs is about to end, when that is known before."""
    cause: str = ""
    """Why the last host ended."""
    absent: bool = False
    """Whether its host found nothing to drive."""
    since: float = 0.0
    watch: Timer | None = None
    due: Timer | None = None
    ready_waiters: list[Future[Driver]] = field(default_factory=list)

    @property
    def is_device(self) -> bool:
        return self.group == DEVICES

    @property
    def pid(self) -> int:
        return self.child.pid if self.child is not None else 0


class Observer:
    """What the kernel does when drivers come and go; override what matters."""

    def driver_ready(self, driver: Driver) -> None: ...
    def driver_lost(self, driver: Driver, cause: str) -> None: ...
    def driver_event(self, driver: Driver, event: HostEvent) -> None: ...
    def driver_changed(self, driver: Driver, reasons: Sequence[Reason]) -> None: ...


class Supervisor:
    """Owns every host process. `observer` is told what happens; nothing here knows of models or sessions."""

    def __init__(
        self,
        runner: Runner,
        watcher: Watcher,
        journal: Journal,
        observer: Observer,
        environ: Mapping[str, str],
        wall: Callable[[], float],
        pid: int,
    ) -> None:
        self.drivers: dict[str, Driver] = {}
        self._runner = runner
        self._watcher = watcher
        self._journal = journal
        self._observer = observer
        self._environ = dict(environ)
        self._wall = wall
        self._pid = pid

    def add(self, name: str, group: str, settings: DriverConfig, threads: int) -> Driver:
        driver = Driver(name, group, settings, threads, RestartPolicy(settings.rules))
        self.drivers[name] = driver
        return driver

    def get(self, name: str) -> Driver:
        """Raises NotFound with the names that exist."""
        try:
            return self.drivers[name]
        except KeyError:
            known = ", ".join(sorted(self.drivers)) or "none"
            raise NotFound(f"there is no driver {name!r}; announced are: {known}") from None

    # ---- starting and stopping

    def start(self, driver: Driver) -> None:
        """Spawn the host. Raises BadState when it runs already."""
        if driver.child is not None:
            raise BadState(f"driver {driver.name} runs already (pid {driver.pid})", state=driver.state)
        self._cancel(driver)
        driver.verdict, driver.absent = "", False
        driver.beat = Beat(seq=0, steps=0, busy_with="start", may_take_s=driver.settings.start_s)
        try:
            self._spawn(driver)
        except OSError as error:
            self._hang_up(driver)
            driver.cause = f"its process could not be started: {error}"
            self._after_crash(driver, driver.cause)
            return
        self._change(driver, DriverState.STARTING)
        self._expect(driver, driver.settings.start_s)
        assert driver.link is not None
        self._runner.spawn(self._begin(driver, driver.link), lambda _value, _error: None)

    def _spawn(self, driver: Driver) -> None:
        channel = driver.channel = Channel(
            self._watcher,
            lambda frames: self._message(driver, frames),
            lambda why: self._kill(driver, why),
            lambda: self._closed(driver),
        )
        driver.link = Link(driver.name, self._runner, channel.send)
        theirs = channel.theirs.fileno()
        driver.child = Child(
            [sys.executable, "-P", "-m", "llmos.drivers.host", driver.name, "--fd", str(theirs)],
            self._environment(driver),
            self._runner,
            self._watcher,
            lambda status: self._exited(driver, status),
            lambda line: self._line(driver, line),
            pass_fds=[theirs],
        )
        channel.theirs.close()

    def _hang_up(self, driver: Driver) -> None:
        if driver.channel is not None:
            driver.channel.close()
        driver.channel = driver.link = None

    def stop(self, driver: Driver, drain_s: float = 0.0) -> None:
        """End the host with SIGTERM, once what runs has ended or `drain_s` seconds have passed; then it is killed."""
        self._cancel(driver)
        if driver.child is None:
            self._change(driver, DriverState.STOPPED)
            self._fail_waiters(driver, BadState(f"driver {driver.name} is stopped", state="stopped"))
            return
        child, link = driver.child, driver.link
        self._change(driver, DriverState.STOPPING)
        if drain_s and link is not None:
            self._runner.spawn(self._drain(link, child), lambda _value, _error: None)
        driver.due = self._runner.after(drain_s, child.terminate)

    async def _drain(self, link: Link, child: Child) -> None:
        await link.call(HostDrain())
        child.terminate()

    def kill_now(self, driver: Driver) -> None:
        """Kill the host and wait for it: for the end of the kernel, when the loop runs no more."""
        if driver.child is not None:
            driver.child.kill_now()
            self._hang_up(driver)
            driver.child = None

    def restart(self, driver: Driver) -> None:
        """End the host and start it again at once, without counting it as a crash."""
        if driver.child is None:
            self.start(driver)
            return
        driver.verdict = ON_REQUEST
        driver.child.signal(signal.SIGKILL)

    def reset(self, driver: Driver) -> None:
        """Forget the crashes of a failed driver and start it. Raises BadState when it has not failed."""
        if driver.state is not DriverState.FAILED:
            raise BadState(
                f"driver {driver.name} has not failed, it is {driver.state.value}: use restart", state=driver.state
            )
        driver.policy.reset()
        self.start(driver)

    def wait_ready(self, driver: Driver) -> Future[Driver]:
        """A future of the driver being usable; fails with DriverFailed or BadState when it will not be."""
        future: Future[Driver] = self._runner.future()
        if driver.state in UP:
            future.set(driver)
        elif driver.state is DriverState.FAILED:
            future.fail(self.failure(driver))
        elif driver.state in (DriverState.STOPPED, DriverState.STOPPING):
            future.fail(
                BadState(f"driver {driver.name} is stopped: llmos driver start {driver.name}", state=driver.state)
            )
        else:
            driver.ready_waiters.append(future)
        return future

    def failure(self, driver: Driver) -> DriverFailed:
        return DriverFailed(
            f"driver {driver.name} failed after {driver.policy.restarts} restarts and is not restarted any more; "
            f"the last cause: {driver.cause}. Try: llmos driver reset {driver.name}",
            restarts=driver.policy.restarts,
            cause=driver.cause,
        )

    @property
    def running(self) -> list[Driver]:
        return [d for d in self.drivers.values() if d.child is not None]

    def _environment(self, driver: Driver) -> dict[str, str]:
        threads = str(driver.threads)
        return {
            **self._environ,
            "LLMOS_PARENT_PID": str(self._pid),
            "OMP_NUM_THREADS": threads,
            "MKL_NUM_THREADS": threads,
            "GOMP_SPINCOUNT": SPIN_COUNT,
            "TOKENIZERS_PARALLELISM": "false",
            "HF_HUB_OFFLINE": self._environ.get("HF_HUB_OFFLINE", "1"),
            "PYTHONUNBUFFERED": "1",
        }

    # ---- messages

    def _message(self, driver: Driver, frames: Sequence[bytes]) -> None:
        assert driver.link is not None
        event = driver.link.receive(frames)
        if isinstance(event, Garbage):
            self._kill(driver, f"it sent something that is no message of a driver: {event.why}")
        elif isinstance(event, Beat):
            self._alive(driver, event)
        elif isinstance(event, Ready):
            self._ready(driver, event)
        elif isinstance(event, Fault):
            driver.verdict = event.text
            self._journal.write("supervisor", "error", f"driver {driver.name}: {event.text}", driver.name)
            if event.sticky:
                self._expect(driver, 3.0)
        elif event is not None:
            self._observer.driver_event(driver, event)
        self._runner.run(self._runner.clock())

    async def _begin(self, driver: Driver, link: Link) -> None:
        settings = driver.settings
        manifest = HostManifest(
            driver=driver.name,
            threads=driver.threads,
            memory_bytes=settings.memory_bytes,
            config=settings.config,
        )
        try:
            await link.call(HostStart(manifest=manifest))
        except LlmosError as error:
            if driver.link is link:
                driver.verdict = driver.verdict or str(error)
                driver.absent = isinstance(error, NotFound)

    def _closed(self, driver: Driver) -> None:
        """No word can come any more: the process has ended, which is seen in a moment, or it must."""
        if driver.watch is not None:
            driver.watch.cancel()
        cause = "it closed its connection to the kernel and did not end"
        driver.watch = self._runner.after(KILL_AFTER_S, lambda: self._kill(driver, driver.verdict or cause))

    # ---- life

    def _ready(self, driver: Driver, event: Ready) -> None:
        if driver.is_device and not any(d.name == driver.name for d in event.devices):
            self._kill(driver, f"it is ready but does not report the device {driver.name}")
            return
        if driver.state is not DriverState.STARTING:
            return
        driver.facts = next((d for d in event.devices if d.name == driver.name), None)
        self._change(driver, DriverState.READY)
        driver.policy.healthy(self._runner.clock())
        waiters, driver.ready_waiters = driver.ready_waiters, []
        for waiter in waiters:
            waiter.set(driver)
        self._observer.driver_ready(driver)

    def _alive(self, driver: Driver, beat: Beat) -> None:
        driver.beat = beat
        if driver.state is DriverState.SUSPECT:
            self._change(driver, DriverState.READY)
        if driver.state is DriverState.READY:
            driver.policy.healthy(self._runner.clock())
        self._expect(driver, beat.may_take_s)

    def _expect(self, driver: Driver, seconds: float) -> None:
        if driver.watch is not None:
            driver.watch.cancel()
        driver.watch = self._runner.after(seconds, lambda: self._overdue(driver, seconds))

    def _overdue(self, driver: Driver, seconds: float) -> None:
        what = f"busy with {driver.beat.busy_with}" if driver.beat.busy_with else "idle"
        numbers: dict[str, Number] = {"allowed_s": seconds, "steps": driver.beat.steps}
        text = f"no sign of life from its work loop for {seconds:.1f} s ({what})"
        reason = Reason(code="overdue", text=text, numbers=numbers, rule="liveness", at=self._wall())
        if driver.state is DriverState.READY:
            self._change(driver, DriverState.SUSPECT, [reason])
            driver.watch = self._runner.after(seconds, lambda: self._overdue(driver, 2 * seconds))
        else:
            self._kill(driver, text)

    def _kill(self, driver: Driver, cause: str) -> None:
        driver.verdict = cause
        self._journal.write("supervisor", "error", f"driver {driver.name} is killed: {cause}", driver.name)
        if driver.child is not None:
            driver.child.signal(signal.SIGKILL)

    def _exited(self, driver: Driver, status: int) -> None:
        child, link, channel = driver.child, driver.link, driver.channel
        assert child is not None and link is not None and channel is not None
        channel.drain()
        stopping = driver.state is DriverState.STOPPING
        cause = driver.verdict or "; ".join(t for t in (exit_text(status), child.tail(1)) if t)
        self._cancel(driver)
        self._hang_up(driver)
        driver.child = driver.facts = None
        driver.cause = "" if cause == ON_REQUEST else cause
        link.lost("stopped" if stopping else cause)
        if stopping or driver.absent:
            why = "" if stopping else f": {cause}"
            absent = Reason(code="driver.absent", text=cause, rule="a driver without its device is not started again")
            self._change(driver, DriverState.STOPPED, [absent] if why else [])
            self._observer.driver_lost(driver, "stopped")
            self._fail_waiters(driver, BadState(f"driver {driver.name} is stopped{why}", state="stopped"))
        else:
            self._after_crash(driver, cause)

    def _after_crash(self, driver: Driver, cause: str) -> None:
        now = self._runner.clock()
        decision = driver.policy.requested(now) if cause == ON_REQUEST else driver.policy.exited(now, cause)
        if isinstance(decision, GiveUp):
            self._change(driver, DriverState.FAILED, [decision.reason])
            self._observer.driver_lost(driver, cause)
            self._fail_waiters(driver, self.failure(driver))
            return
        self._change(driver, DriverState.BACKOFF, [decision.reason])
        self._observer.driver_lost(driver, cause)
        driver.due = self._runner.at(decision.at, lambda: self.start(driver))

    def _fail_waiters(self, driver: Driver, error: LlmosError) -> None:
        waiters, driver.ready_waiters = driver.ready_waiters, []
        for waiter in waiters:
            waiter.fail(error)

    def _cancel(self, driver: Driver) -> None:
        for timer in (driver.watch, driver.due):
            if timer is not None:
                timer.cancel()
        driver.watch = driver.due = None

    def _change(self, driver: Driver, state: DriverState, reasons: Sequence[Reason] = ()) -> None:
        driver.state = state
        driver.since = self._wall()
        level = "error" if state is DriverState.FAILED else "warning" if reasons else "info"
        said = "down" if state is DriverState.BACKOFF else state.value
        text = f"driver {driver.name} is {said}" + (f": {reasons[0].text}" if reasons else "")
        self._journal.write("supervisor", level, text, driver.name, reasons=reasons, pid=driver.pid)
        self._observer.driver_changed(driver, reasons)

    def _line(self, driver: Driver, line: str) -> None:
        self._journal.write("driver", "debug", line, driver.name)
