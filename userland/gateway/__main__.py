"""`python -m llmos.userland.gateway`: options, signals, readiness. Exit status 0 stopped, 1 failed, 2 wrong options
or settings, which another start would not mend.

The kernel starts it (`[gateway]` of its configuration, `llmos serve --http`); it may as well be started by hand beside
a running kernel. What it prints on standard output is for the journal.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from llmos.syscalls.errors import LlmosError
from llmos.userland.places import home_folder, kernel_address

from .core.app import build
from .core.keys import KeyStore, database
from .core.limits import Limiter
from .core.metrics import Instruments
from .core.models import Models
from .core.serving import CannotListen, Server, raise_limits
from .core.sessions import Sessions
from .core.settings import BadSettings, Settings, settings_of
from .core.store import Store
from .core.tracing import tracer
from .core.wiring import Gateway


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m llmos.userland.gateway", description="The HTTP gateway of LLM OS")
    parser.add_argument("--http", metavar="HOST:PORT", help="where to listen, or unix:PATH (default: 127.0.0.1:7411)")
    parser.add_argument("--settings", metavar="JSON", default="{}", help="the table [gateway.config], as JSON")
    parser.add_argument("--home", metavar="DIR", help="folder with the keys (default: LLMOS_HOME, ~/.llmos)")
    parser.add_argument("--runtime", metavar="DIR", help="folder of the kernel's socket")
    parser.add_argument("--parent", type=int, metavar="PID", help="stop when this process ends")
    parser.add_argument("--ready-fd", type=int, metavar="N", help="write a line with the URL here when it listens")
    return parser.parse_args(argv)


def read_settings(options: argparse.Namespace) -> Settings:
    """Raises BadSettings."""
    try:
        table = json.loads(options.settings)
    except ValueError as error:
        raise BadSettings(f"--settings is not JSON: {error}") from None
    if not isinstance(table, dict):
        raise BadSettings("--settings is no table: give a JSON object")
    return settings_of({**table, "http": options.http} if options.http else table)


def wire(settings: Settings, home: Path, address: str = "") -> Gateway:
    """A gateway with everything that it is made of."""
    sessions = Sessions(address, settings.session_idle_s)
    keys, store = KeyStore(database(home)), Store(database(home))
    models = Models(settings, sessions)
    limits = Limiter(settings.per_key_connections)
    return Gateway(settings, keys, sessions, models, Instruments(), limits, store, home, tracer=tracer(os.environ))


async def serve(settings: Settings, home: Path, address: str, parent: int | None, ready_fd: int | None) -> None:
    """Serve until SIGTERM, SIGINT or the end of the parent; a second signal ends the drain."""
    gateway = wire(settings, home, address)
    loop = asyncio.get_running_loop()
    stop, hurry = asyncio.Event(), asyncio.Event()
    fd = None
    try:
        fd = watch_parent(parent, stop) if parent is not None else None
        server = Server(gateway, build(gateway))
        await server.start()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, lambda: hurry.set() if stop.is_set() else stop.set())
        _announce(gateway, server.url, ready_fd)
        await stop.wait()
        stopping = loop.create_task(server.stop())
        hurrying = loop.create_task(hurry.wait())
        await asyncio.wait({stopping, hurrying}, return_when=asyncio.FIRST_COMPLETED)
        if hurry.is_set():
            gateway.state.idle.set()
        await stopping
        hurrying.cancel()
    finally:
        if fd is not None:
            loop.remove_reader(fd)
            os.close(fd)
        await gateway.sessions.close()
        if gateway.tracer is not None:
            await asyncio.to_thread(gateway.tracer.close)
        gateway.store.close()
        gateway.keys.close()


def watch_parent(pid: int, stop: asyncio.Event) -> int:
    """Stop when the process that started us ends, however it ends. Raises BadSettings."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        raise BadSettings(f"--parent {pid}: there is no such process") from None
    asyncio.get_running_loop().add_reader(fd, stop.set)
    return fd


def _announce(gateway: Gateway, url: str, ready_fd: int | None) -> None:
    if ready_fd is not None:
        with contextlib.suppress(BrokenPipeError):
            os.write(ready_fd, f"READY {url}\n".encode())
        if ready_fd > 2:
            os.close(ready_fd)
    hint = ""
    if gateway.settings.anonymous == "no" and not any(key.revoked is None for key in gateway.keys.list()):
        hint = "; there are no keys yet: llmos keys create NAME"
    print(f"the gateway listens at {url}{hint}", flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    options = parse(argv)
    os.umask(0o077)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s", stream=sys.stderr)
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    home = Path(options.home).expanduser().absolute() if options.home else home_folder()
    address = f"ipc://{Path(options.runtime).absolute() / 'kernel.sock'}" if options.runtime else kernel_address()
    try:
        settings = read_settings(options)
        raise_limits(settings)
        asyncio.run(serve(settings, home, address, options.parent, options.ready_fd))
    except (BadSettings, CannotListen, LlmosError) as error:
        print(f"ERROR {error}", file=sys.stderr)
        return 2 if isinstance(error, BadSettings) else 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
