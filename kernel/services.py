"""Programs of the system's own that the kernel starts, restarts and stops beside its drivers: the HTTP gateway.

A service is a program like any other: it connects to the client socket and has no more authority than its user. It is
no task, because it opens sessions of its own, one for each key.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from llmos.syscalls.types import Reason

from .children import Child, exit_text
from .config import KernelConfig
from .pending import Timer
from .restart import Restart, RestartPolicy, RestartRules

if TYPE_CHECKING:
    from .core import Kernel

GATEWAY = "gateway"
BAD_SETTINGS = 2
"""The exit status of a service whose settings are wrong: another start would not help."""
LAST_PORT = 65535
STOP_S = 3.0
"""How much longer than `limits.drain_s` a service may take to end."""
_READY = "READY "
_LEVELS = {"DEBUG ": "debug", "INFO ": "debug", "WARNING ": "warning", "ERROR ": "error", "CRITICAL ": "error"}
"""What a line of a program's log begins with, and the level it has here: what it tells of requests is detail."""


class Service:
    """One service: its process, and what is known of it.

    Args:
        name: the unit of its lines in the journal.
        argv: program and arguments.
        environ: its environment.
        rules: when it is started again.
    """

    def __init__(
        self,
        kernel: Kernel,
        name: str,
        argv: Sequence[str],
        environ: Mapping[str, str],
        rules: RestartRules | None = None,
    ) -> None:
        self._kernel = kernel
        self.name = name
        self.argv = argv
        self._environ = environ
        self._policy = RestartPolicy(rules, f"the {name}", "a reload of the configuration (SIGHUP) tries again")
        self._child: Child | None = None
        self._timer: Timer | None = None
        self.state = "stopped"
        self.url = ""
        """Where it serves; empty while it does not."""
        self.cause = ""

    @property
    def running(self) -> bool:
        """Whether its process lives."""
        return self._child is not None

    def describe(self) -> dict[str, Any]:
        """What /proc/services shows."""
        return {
            "name": self.name,
            "state": self.state,
            "pid": self._child.pid if self._child is not None else 0,
            "url": self.url,
            "restarts": self._policy.restarts,
            "cause": self.cause,
        }

    def start(self) -> None:
        """Start it; when that fails it is tried again by the restart policy."""
        self._timer = None
        kernel = self._kernel
        try:
            self._child = Child(
                self.argv, self._environ, kernel.runner, kernel.watcher, self._exited, self._line, new_group=True
            )
        except OSError as error:
            self.cause = f"it could not be started: {error}"
            self._again(self.cause)
            return
        self.state = "starting"

    def stop(self, grace_s: float) -> None:
        """Ask it to end; it is killed after `grace_s` seconds."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.state = "stopping" if self._child is not None else "stopped"
        if self._child is not None:
            self._child.terminate(grace_s)

    def kill_now(self) -> None:
        """Kill it and wait for it: for the end of the kernel, when the loop runs no more."""
        if self._child is not None:
            self._child.kill_now()
            self._child = None

    def _line(self, line: str) -> None:
        if line.startswith(_READY):
            self.url = line.removeprefix(_READY)
            self.state = "running"
            self._policy.healthy(self._kernel.runner.clock())
            return
        mark, text = _read(line)
        self._kernel.log(self.name, text, level=_LEVELS.get(mark, "info"))

    def _exited(self, status: int) -> None:
        assert self._child is not None
        said = _read(self._child.tail(1))[1]
        if self.state == "running":
            self._policy.healthy(self._kernel.runner.clock())
        self._child = None
        self.url = ""
        if self.state == "stopping":
            self.state = "stopped"
            self._kernel.log(self.name, f"the {self.name} has stopped", self.name)
            self._kernel.services.stopped()
            return
        ended = exit_text(status)
        self.cause = f"{ended}: {said}" if said else ended
        if status == BAD_SETTINGS:
            text = f"the {self.name} is not started again: its settings are wrong ({ended})"
            self._failed(Reason(code="service.settings", text=text))
            return
        self._again(ended)

    def _again(self, cause: str) -> None:
        decision = self._policy.exited(self._kernel.runner.clock(), cause)
        if not isinstance(decision, Restart):
            self._failed(decision.reason)
            return
        self.state = "backoff"
        self._timer = self._kernel.runner.at(decision.at, self.start)
        reason = self._kernel.stamp(decision.reason)
        self._kernel.log(self.name, reason.text, self.name, [reason], level="warning")

    def _failed(self, reason: Reason) -> None:
        self.state = "failed"
        stamped = self._kernel.stamp(reason)
        self._kernel.log(self.name, stamped.text, self.name, [stamped], level="error")


def _read(line: str) -> tuple[str, str]:
    """The mark of its level and the rest of a line."""
    mark = next((mark for mark in _LEVELS if line.startswith(mark)), "")
    return mark, line.removeprefix(mark)


class Services:
    """The services that the configuration asks for."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self.by_name: dict[str, Service] = {}
        self._next: Service | None = None
        """Waits for the end of the one whose place it takes."""

    def start(self) -> None:
        """Start what the configuration names."""
        service = self._wanted()
        if service is not None:
            self.by_name[GATEWAY] = service
            service.start()

    def reload(self) -> None:
        """Take over another configuration: what changed, or has failed, is started anew when the old one has ended."""
        old, wanted = self.by_name.get(GATEWAY), self._wanted()
        if old is not None and wanted is not None and old.argv == wanted.argv and old.state != "failed":
            return
        self._next = wanted
        if old is None or not old.running:
            if old is not None:
                old.stop(0.0)
            self.stopped()
            return
        old.stop(self._grace_s)

    def stopped(self) -> None:
        """A service has ended because it was to: what takes its place starts."""
        service, self._next = self._next, None
        self.by_name.clear()
        if service is not None and not self._kernel.draining:
            self.by_name[GATEWAY] = service
            service.start()

    def stop(self) -> None:
        """Ask all to end."""
        self._next = None
        for service in list(self.by_name.values()):
            service.stop(self._grace_s)

    def kill_now(self) -> None:
        """Kill what is left."""
        for service in self.by_name.values():
            service.kill_now()

    @property
    def running(self) -> bool:
        """Whether a process of a service lives."""
        return any(service.running for service in self.by_name.values())

    @property
    def url(self) -> str:
        """Where the gateway serves; empty while it does not."""
        return self.by_name[GATEWAY].url if GATEWAY in self.by_name else ""

    @property
    def _grace_s(self) -> float:
        return self._kernel.config.limits.drain_s + STOP_S

    def _wanted(self) -> Service | None:
        config = self._kernel.config
        if not config.gateway.http:
            return None
        environ = {
            **os.environ,
            "LLMOS_HOME": str(config.paths.home),
            "LLMOS_RUNTIME_DIR": str(config.paths.runtime),
            "PYTHONUNBUFFERED": "1",
        }
        return Service(self._kernel, GATEWAY, gateway_argv(config, self._kernel.pid), environ)


def problem_with(http: str) -> str:
    """Why nobody can listen at an address now; empty when somebody can. The address is `HOST:PORT` or `unix:PATH`."""
    if http.startswith("unix:"):
        folder = Path(http.removeprefix("unix:")).absolute().parent
        return "" if folder.is_dir() else f"there is no folder {folder}"
    host, _, port = http.rpartition(":")
    if int(port) > LAST_PORT:
        return f"there is no port {port}"
    try:
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
        with socket.socket(found[0][0], socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(found[0][4])
    except OSError as error:
        return str(getattr(error, "strerror", None) or error)
    return ""


def gateway_argv(config: KernelConfig, pid: int) -> list[str]:
    """The command of the gateway that the configuration describes; it ends with the process `pid`."""
    settings = msgspec.json.encode(config.gateway.config).decode()
    return [
        sys.executable, "-P", "-m", "llmos.userland.gateway", "--http", config.gateway.http, "--settings", settings,
        "--home", str(config.paths.home), "--runtime", str(config.paths.runtime), "--parent", str(pid),
        "--ready-fd", "1",
    ]  # fmt: skip
