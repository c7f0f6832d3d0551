"""A driver's process: `python -m llmos.drivers.host NAME --fd N`, started by the kernel.

One driver per process, so that what it breaks is its own. The main thread is the work thread: it runs the driver and
the step loop. The I/O thread is `link`. A typed error answers its call; anything else that escapes is a fault, which
ends the process: after it, nothing the driver holds can be trusted (fail-stop).
"""

from __future__ import annotations

import argparse
import faulthandler
import gc
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from types import FrameType
from typing import Any, ClassVar, Protocol

from llmos.syscalls.describe import suggest
from llmos.syscalls.driver import (
    HOST_CALLS, Fault, HostDrain, HostManifest, HostStart, HostStop, HostSubmit, Memory, MetricEvent, Ready, Stats,
)  # fmt: skip
from llmos.syscalls.errors import BadArgument, BadCall, BadState, DeviceFault, LlmosError, TimedOut, Unavailable
from llmos.syscalls.spec import Call, check
from llmos.syscalls.types import Done
from llmos.syscalls.wire import unpack_body

from . import plugins
from .device_calls import DeviceCalls
from .file_calls import FileCalls
from .held import Limits
from .hookspecs import DEVICES
from .link import Incoming, Link, Stop
from .outgoing import Outgoing
from .parent import end_with_parent
from .pulse import Pulse

EXIT_FAULT = 70
EXIT_REFUSED = 78
MEMORY_S = 1.0
METRIC_S = 10.0
REQUESTS = "requests"
CALLS_A_STEP = 64
"""So many calls are taken before the next step: requests that come together start together, and none waits for ever."""
LONG_S = 0.005
"""Steps predicted to take this long are worth handing the socket to the I/O thread."""
SWITCH_S = 0.0005
"""How long a thread waits for the interpreter that another has. Python's own 5 ms are longer than many a step, and who
takes or sends a message beside a step waits so several times."""
SETTINGS: Mapping[str, tuple[float, str]] = {
    "start_limit_s": (120.0, "seconds that starting the driver may take before it counts as stuck"),
    "load_limit_s": (60.0, "the same for loading a model, to which its size is added"),
    "step_limit_s": (3.0, "the same for one step; ten times the driver's own prediction counts if that is more"),
}
"""Settings of every driver, in `[drivers.NAME.config]` beside the driver's own: default and meaning."""


class Calls(Protocol):
    """What a host serves: a device or a file system."""

    STARTS_WORK: ClassVar[tuple[type[Call[Any]], ...]]
    CHANGES_MEMORY: ClassVar[tuple[type[Call[Any]], ...]]
    LONG: ClassVar[tuple[type[Call[Any]], ...]]
    ending: bool

    @property
    def handlers(self) -> Mapping[type[Call[Any]], Callable[[int, Any], Any]]: ...
    @property
    def busy(self) -> bool: ...
    @property
    def pause(self) -> float: ...
    def ready(self, memory_limit: int) -> Ready: ...
    def limit(self, call: Call[Any]) -> float: ...
    def step_seconds(self) -> float: ...
    def step(self) -> None: ...
    def cancel(self, request: str) -> None: ...
    def stats(self) -> Stats: ...
    def memory(self) -> Memory | None: ...
    def metrics(self) -> list[MetricEvent]: ...
    def idle(self) -> None: ...
    def close(self) -> None: ...


class Seldom:
    """Says yes at most once in so many seconds, and only when something was done since."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._at = float("-inf")
        self._done = 0

    def now(self, done: int) -> bool:
        now = time.monotonic()
        if done == self._done or now - self._at < self._seconds:
            return False
        self._done, self._at = done, now
        return True


class Host:
    """The work loop of one driver."""

    def __init__(self, name: str, link: Link) -> None:
        self._name = name
        self._link = link
        self._out = Outgoing(link.post)
        self._pulse = Pulse(self._beat)
        self._idle_s = SETTINGS["step_limit_s"][0]
        self._plugin: plugins.Plugin | None = None
        self._calls: Calls | None = None
        self._draining: list[int] | None = None
        self._asked_to_end = False
        self._exit: int | None = None
        self._memory_due = Seldom(MEMORY_S)
        self._metric_due = Seldom(METRIC_S)

    def run(self) -> int:
        """Work until stopped; returns the exit status of the process."""
        try:
            self._pulse.declare("", self._idle_s)
            while self._exit is None:
                self._turn()
        except Exception as error:  # noqa: BLE001 - the boundary of a driver: whatever escapes ends the process
            traceback.print_exc()
            self._out.event(Fault(text=f"{type(error).__name__}: {error}", sticky=True))
            self._exit = EXIT_FAULT
        self._out.flush()
        return self._exit

    def ask_to_end(self, _number: int, _frame: FrameType | None) -> None:
        """Signal handler."""
        self._asked_to_end = True
        if self._calls is not None:
            self._calls.ending = True
        self._link.stop()

    def _beat(self, beat: Any) -> None:
        self._out.event(beat)
        self._out.flush()

    def _turn(self) -> None:
        """One round: the calls that are waiting, then a step if something runs."""
        busy = self._calls is not None and self._calls.busy
        item = self._next(busy, self._calls.pause if self._calls is not None else 0.0)
        if item is None and not busy:
            self._rest()
        taken = 0
        while item is not None:
            self._take(item)
            taken += 1
            item = self._next(busy=True) if self._exit is None and taken < CALLS_A_STEP else None
        if self._calls is not None and self._calls.busy and self._exit is None:
            if self._calls.pause:
                self._pulse.alive()
            else:
                self._step(self._calls)
        self._out.flush()

    def _take(self, item: Incoming | Stop) -> None:
        if isinstance(item, Stop):
            self._stop(None)
        else:
            self._answer(item)
        if self._calls is None or not self._calls.busy:  # else the next step has more to say
            self._out.flush()

    def _step(self, calls: Calls) -> None:
        predicted = calls.step_seconds()
        self._pulse.declare(REQUESTS, max(self._idle_s, 10 * predicted))
        if predicted >= LONG_S:
            self._out.flush()
            self._link.lend()
        calls.step()
        self._drained()
        self._sample()

    def _next(self, busy: bool, pause: float = 0.0) -> Incoming | Stop | None:
        due = self._pulse.until_due(self._idle_s)
        return self._link.receive(min(pause, due) if busy else due)

    def _rest(self) -> None:
        """Nothing came for a while."""
        self._pulse.declare("", self._idle_s)
        if self._calls is not None:
            self._calls.idle()
            self._sample()

    def _sample(self) -> None:
        """Report now and then what steps have changed."""
        if self._calls is not None and self._memory_due.now(self._pulse.steps):
            self._report_memory(self._calls)
        if self._calls is not None and self._metric_due.now(self._pulse.steps):
            for event in self._calls.metrics():
                self._out.event(event)

    def _report_memory(self, calls: Calls) -> None:
        memory = calls.memory()
        if memory is not None:
            self._out.event(memory)

    # ---- calls

    def _answer(self, item: Incoming) -> None:
        """Carry out one call. A typed error is its answer; a fault of the device is one too, and then the end."""
        try:
            spec = HOST_CALLS.get(item.name)
            if spec is None:
                raise BadCall(f"there is no host call {item.name!r}")
            call = check(spec, unpack_body(item.body))
            value = self._carry_out(item.number, call)
        except LlmosError as error:
            self._out.error(item.number, error)
            if isinstance(error, DeviceFault):
                raise
            return
        if value is not None:
            self._out.reply(item.number, value)
        if isinstance(call, HostStart):
            self._announce(call.manifest)
        elif self._calls is not None and isinstance(call, self._calls.CHANGES_MEMORY):
            self._report_memory(self._calls)

    def _carry_out(self, number: int, call: Call[Any]) -> Any:
        if call.deadline is not None and time.monotonic_ns() >= call.deadline:
            raise TimedOut("the deadline had passed before the driver could begin")
        if isinstance(call, HostStop):
            self._stop(number)
            return None
        if isinstance(call, HostStart):
            return self._start(call.manifest)
        calls = self._calls
        if calls is None:
            raise BadState(f"driver {self._name} has not been started", state="starting")
        if isinstance(call, HostDrain):
            self._draining = [*(self._draining or ()), number]
            self._drained()
            return None
        if self._draining is not None and isinstance(call, calls.STARTS_WORK):
            raise Unavailable(f"driver {self._name} is stopping and takes no new work")
        handler = calls.handlers.get(type(call))
        if handler is None:
            raise BadCall(f"driver {self._name} has no call {_call_name(call)!r}")
        self._pulse.declare(_activity(call), calls.limit(call))
        if not isinstance(call, calls.LONG):
            return handler(number, call)
        self._link.lend()
        try:
            return handler(number, call)
        finally:  # the time that was asked for it does not cover what comes next
            self._pulse.declare("", self._idle_s)

    def _drained(self) -> None:
        if self._draining and self._calls is not None and not self._calls.busy:
            for number in self._draining:
                self._out.reply(number, Done())
            self._draining = []

    # ---- beginning and end

    def _start(self, manifest: HostManifest) -> Done:
        if self._calls is not None:
            raise BadState(f"driver {self._name} has been started already", state="ready")
        if manifest.driver != self._name:
            raise BadArgument(
                f"this host is for driver {self._name}, not {manifest.driver}", name="driver", got=manifest.driver
            )
        self._exit = EXIT_REFUSED
        settings, config = split_settings(manifest.config)
        self._idle_s = settings["step_limit_s"]
        self._pulse.declare("start", settings["start_limit_s"])
        self._link.lend()
        plugin = plugins.load(self._name)
        self._calls = self._serve(plugin, manifest, settings, config)
        plugin.manager.hook.driver_started(name=self._name)
        self._plugin = plugin
        self._link.serve(self._calls)
        self._calls.ending = self._asked_to_end
        gc.freeze()  # what was imported stays: a collection that looks at all of torch stops requests for 0.2 s
        self._exit = None
        return Done()

    def _serve(
        self, plugin: plugins.Plugin, manifest: HostManifest, settings: Mapping[str, float], config: Mapping[str, Any]
    ) -> Calls:
        if plugin.group != DEVICES:
            return FileCalls(self._name, plugin.filesystems[self._name], config)
        device = plugin.devices[self._name]()
        unknown = sorted(set(config) - set(device.config_keys))
        if unknown:
            known = [*device.config_keys, *SETTINGS]
            text = f"driver {self._name} has no setting {unknown[0]!r}; {suggest(unknown[0], known)}"
            raise BadArgument(text, name=unknown[0], want=", ".join(sorted(known)))
        device.start(self._name, manifest.threads, config)
        self._link.transmit = (
            plugin.manager.hook.wrap_send(device=device, send=self._link.transmit) or self._link.transmit
        )
        limits = Limits(settings["step_limit_s"], settings["load_limit_s"])
        return DeviceCalls(device, device.facts(), self._out, self._pulse, limits)

    def _announce(self, manifest: HostManifest) -> None:
        assert self._calls is not None
        self._out.event(self._calls.ready(manifest.memory_bytes))
        self._pulse.declare("", self._idle_s)
        self._report_memory(self._calls)

    def _stop(self, number: int | None) -> None:
        """Give everything back and answer whatever waits."""
        self._exit = os.EX_OK
        if self._calls is not None and self._plugin is not None:
            self._calls.close()
            self._plugin.manager.hook.driver_stopped(name=self._name)
        for drain in self._draining or ():
            self._out.reply(drain, Done())
        self._link.take_back()  # what has come and was not read yet waits too
        while (item := self._next(busy=True)) is not None:
            if isinstance(item, Incoming):
                self._out.error(item.number, Unavailable(f"driver {self._name} is stopping"))
        if number is not None:
            self._out.reply(number, Done())


def _call_name(call: Call[Any]) -> str:
    return type(call).__name__.removeprefix("Host").lower()


def _activity(call: Call[Any]) -> str:
    """What the work loop is busy with: one word for all that belongs to requests, so that it is said once."""
    return REQUESTS if isinstance(call, HostSubmit) else _call_name(call)


def split_settings(config: Mapping[str, Any]) -> tuple[dict[str, float], dict[str, Any]]:
    """A driver's configuration as the host's own settings, with defaults, and the driver's.

    Raises:
        BadArgument: a setting of the host is not a number above 0.
    """
    rest = dict(config)
    settings = {name: rest.pop(name, default) for name, (default, _meaning) in SETTINGS.items()}
    for name, value in settings.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
            raise BadArgument(
                f"{name} is {value!r}; expected a number of seconds above 0", name=name, got=repr(value), want="seconds"
            )
    return settings, rest


def main(argv: Sequence[str] | None = None) -> int:
    parent = end_with_parent()
    # Ctrl-C reaches every process of the terminal; the kernel decides what it means for drivers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parser = argparse.ArgumentParser(prog="python -m llmos.drivers.host", description="Run one driver for a kernel.")
    parser.add_argument("name", help="the driver, as its package announces it")
    parser.add_argument("--fd", type=int, required=True, metavar="N", help="this end of the kernel's socket pair")
    arguments = parser.parse_args(argv)
    faulthandler.enable()
    sys.setswitchinterval(SWITCH_S)
    threading.excepthook = _end_process
    link = Link(arguments.fd, parent)
    host = Host(arguments.name, link)
    signal.signal(signal.SIGTERM, host.ask_to_end)
    status = host.run()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it ends already
    link.close()
    return status


def _end_process(failure: threading.ExceptHookArgs) -> None:
    """Without its I/O thread the process is deaf."""
    traceback.print_exception(failure.exc_type, failure.exc_value, failure.exc_traceback)
    os._exit(EXIT_FAULT)


if __name__ == "__main__":
    sys.exit(main())
