"""Commands about the system itself: serve, stop, driver, doctor, help."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from argparse import Namespace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec

from llmos.syscalls.errors import LlmosError, TimedOut
from llmos.syscalls.types import Advice, Kind
from llmos.userland.places import kernel_address

from .. import text
from ..cli import Cli
from ..help import overview, page
from .explaining import figure, label


def serve(cli: Cli, values: Namespace) -> int:
    """Become the kernel: the process id stays, so a service manager supervises it."""
    argv = [sys.executable, "-P", "-m", "llmos.kernel"]
    if values.config:
        argv += ["--config", str(Path(values.config).expanduser())]
    for flag, folder in (("--home", values.home), ("--runtime", values.runtime)):
        if folder:
            argv += [flag, str(Path(folder).expanduser())]
    if values.shared:
        argv += ["--shared"]
    if values.http:
        argv += ["--http", values.http]
    sys.stdout.flush()
    os.execv(sys.executable, argv)


def stop(cli: Cli, values: Namespace) -> int:
    """Ask the running kernel to end, and wait until it has."""
    facts = cli.system.stat().fields
    pid = int(facts["pid"])
    descriptor = os.pidfd_open(pid)
    try:
        os.kill(pid, signal.SIGTERM)
        if values.force:
            os.kill(pid, signal.SIGTERM)
        if not _ended(descriptor, values.timeout if values.timeout is not None else 60.0):
            raise TimedOut(f"the kernel (pid {pid}) is still busy; wait, or say --force to end its requests")
    finally:
        os.close(descriptor)
    if not cli.out.result({"pid": pid, "state": "stopped"}):
        cli.out.line(f"the kernel (pid {pid}) has stopped")
    return 0


def _ended(descriptor: int, seconds: float) -> bool:
    import select

    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def driver(cli: Cli, values: Namespace) -> int:
    if values.action == "check":
        argv = [sys.executable, "-P", "-m", "llmos.drivers.conformance", values.name]
        return subprocess.run([*argv, "--json"] if cli.out.as_json else argv, check=False).returncode
    info = cli.system.find(Kind.DRIVER, values.name)
    assert info.handle is not None
    after = cli.system.control(info.handle, values.action)
    if not cli.out.result(after):
        cli.out.line(f"driver {values.name}: {values.action} is under way; `drivers` shows how it goes")
    return 0


def doctor(cli: Cli, values: Namespace) -> int:
    """Check what most often goes wrong, and say what would be better; exit status 1 when something is wrong."""
    advised, raised = _advised(cli)
    home = cli.home()
    findings = [*_packages(), _kernel(cli), *_gateway(cli, home), *_places(home), *raised]
    told = [{"check": c, "ok": ok, "text": t} for c, ok, t in findings]
    if not cli.out.result([*told, *({"check": "advice", "ok": True, **msgspec.to_builtins(a)} for a in advised)]):
        cli.out.table(("CHECK", "STATE", "FINDING"), [(c, "ok" if ok else "failed", t) for c, ok, t in findings])
        for each in advised:
            cli.out.line()
            cli.out.line(f"advice: {each.text}")
            for what, numbers in (("seen", each.evidence), ("expected", each.gain)):
                shown = ", ".join(f"{label(name)} {figure(name, value)}" for name, value in numbers.items())
                cli.out.line(f"  {what}: {shown}")
            cli.out.line(f"  do: {each.action}")
    return 0 if all(ok for _, ok, _ in findings) else 1


def _advised(cli: Cli) -> tuple[list[Advice], list[tuple[str, bool, str]]]:
    """What the kernel advises, and the alerts that are raised, as findings; nothing where no kernel answers."""
    from llmos.userland.link import NoKernel

    try:
        raised = [(f"alert {each.rule}", each.severity == "info", each.text) for each in cli.system.alerts()]
        return cli.system.advice(), raised
    except (NoKernel, LlmosError):
        return [], []


def _packages() -> list[tuple[str, bool, str]]:
    found = []
    for name in ("torch", "transformers", "pyzmq", "msgpack", "msgspec", "pluggy", "psutil"):
        try:
            found.append((name, True, version(name)))
        except PackageNotFoundError:
            found.append((name, False, f"is not installed; try: pip install -c constraints.txt {name}"))
    return found


def _kernel(cli: Cli) -> tuple[str, bool, str]:
    from llmos.userland.link import NoKernel

    try:
        facts = cli.system.stat().fields
        states = {info.name: info.state for info in cli.system.drivers()}
    except NoKernel:
        return "kernel", True, f"none is running on {kernel_address()}; llmos serve starts one"
    except LlmosError as error:
        return "kernel", False, str(error)
    bad = [name for name, state in states.items() if state == "failed"]
    drivers = ", ".join(f"{name} {state}" for name, state in states.items())
    hint = f"; try: driver reset {bad[0]}" if bad else ""
    return "kernel", not bad, f"{facts['version']}, pid {facts['pid']}; drivers: {drivers}{hint}"


def _gateway(cli: Cli, home: Path) -> list[tuple[str, bool, str]]:
    """Where the gateway serves, and whether anybody can use it; nothing where there is none."""
    from llmos.userland.gateway.core.keys import KeyStore, database
    from llmos.userland.link import NoKernel

    try:
        shown = [msgspec.json.decode(cli.system.read(entry.path)) for entry in cli.system.list("/proc/services")]
    except (NoKernel, LlmosError):
        return []
    if not shown:
        return []
    store = KeyStore(database(home))
    keys = sum(key.state(time.time()) == "valid" for key in store.list())
    store.close()
    hint = f"{keys} key{'s' * (keys != 1)}" if keys else "no keys; make one: llmos keys create NAME"
    return [
        (each["name"], each["state"] == "running", f"{each['url'] or each['state']}, {each['cause'] or hint}")
        for each in shown
    ]


def _places(home: Path) -> list[tuple[str, bool, str]]:
    there = next(folder for folder in (home, *home.parents) if folder.exists())
    free = shutil.disk_usage(there).free
    writable = os.access(there, os.W_OK)
    places = [("home", writable, f"{home}" + ("" if writable else " cannot be written"))]
    places.append(("disk", free > 1 << 30, f"{text.size(free)} free for {home}"))
    shm = Path("/dev/shm")
    if shm.exists():
        left = shutil.disk_usage(shm).free
        places.append(("shared memory", left > 64 << 20, f"{text.size(left)} free in {shm}"))
    return places


def help(cli: Cli, values: Namespace) -> int:
    cli.out.page(page(values.command) if values.command else overview())
    return 0
