"""`python -m llmos.kernel`: options, lock, signals, readiness. Exit status 0 stopped, 1 failed, 2 bad usage."""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import resource
import signal
import socket
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import zmq

from llmos.syscalls.errors import LlmosError

from .config import KernelConfig, load
from .server import Server, self_test
from .services import problem_with
from .settings import ConfigError


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m llmos.kernel", description="The kernel of LLM OS")
    parser.add_argument("--config", metavar="FILE", help="configuration (default: HOME/config.toml)")
    parser.add_argument("--runtime", metavar="DIR", help="folder of the sockets")
    parser.add_argument("--home", metavar="DIR", help="folder of models and journal (default: ~/.llmos)")
    parser.add_argument("--drivers", metavar="A,B", help="drivers to start (default: all but the null ones)")
    parser.add_argument("--parent", type=int, metavar="PID", help="stop when this process ends")
    parser.add_argument("--ready-fd", type=int, metavar="N", help="write a line here when calls are accepted")
    parser.add_argument("--http", metavar="HOST:PORT", help="start the HTTP gateway there, or at unix:PATH")
    parser.add_argument("--shared", action="store_true", default=None, help="let other users connect, as policy allows")
    return parser.parse_args(argv)


def read_config(options: argparse.Namespace) -> KernelConfig:
    drivers = None if options.drivers is None else [name for name in options.drivers.split(",") if name]
    return load(
        {
            "config": options.config,
            "paths.runtime": options.runtime,
            "paths.home": options.home,
            "drivers.load": drivers,
            "listen.shared": options.shared,
            "gateway.http": options.http,
        }
    )


def make_folder(folder: Path) -> None:
    """Raises ConfigError: it is not there and cannot be made."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        said = f"the folder {folder} cannot be made ({error.strerror}); choose another with --home or --runtime"
        raise ConfigError(said) from None


@contextlib.contextmanager
def locked(config: KernelConfig) -> Iterator[None]:
    """Hold the runtime folder: a second daemon on one ipc path would silently take all new clients from the first.

    Raises:
        ConfigError: another kernel holds it, or it belongs to somebody else.
    """
    folder = config.paths.runtime
    make_folder(folder)
    if folder.stat().st_uid != config.uid:
        raise ConfigError(f"the runtime folder {folder} belongs to another user; choose another with --runtime")
    folder.chmod(0o711 if config.listen.shared else 0o700)
    path = folder / "kernel.lock"
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.read(fd, 32).decode("ascii", "replace").strip()
            raise ConfigError(
                f"a kernel (pid {pid}) runs already on {folder}; use it, stop it with `llmos stop`, "
                "or name another folder in LLMOS_RUNTIME_DIR"
            ) from None
        os.truncate(fd, 0)
        os.write(fd, f"{os.getpid()}\n".encode())
        if activation_fd() is None:
            config.paths.socket.unlink(missing_ok=True)
        yield
    finally:
        os.close(fd)


def activation_fd() -> int | None:
    """The listening socket of systemd's socket activation (sd_listen_fds(3)), None without.

    Its file belongs to the service manager: it stays when the kernel ends, so that a restart loses no request.
    """
    if os.environ.get("LISTEN_PID") != str(os.getpid()) or os.environ.get("LISTEN_FDS") != "1":
        return None
    return 3


def announce(ready_fd: int | None) -> None:
    """Calls are accepted: say so to who started us and to a service manager (sd_notify(3))."""
    if ready_fd is not None:
        with contextlib.suppress(BrokenPipeError):
            os.write(ready_fd, f"READY {os.getpid()}\n".encode())
        os.close(ready_fd)
    address = os.environ.get("NOTIFY_SOCKET")
    if address:
        kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC
        with socket.socket(socket.AF_UNIX, kind) as notify, contextlib.suppress(OSError):  # nobody listens any more
            notify.sendto(f"READY=1\nMAINPID={os.getpid()}".encode(), address.replace("@", "\0", 1))


class Signals:
    """SIGTERM and SIGINT stop, a second one stops at once; SIGHUP reads the configuration again."""

    def __init__(self, server: Server, options: argparse.Namespace) -> None:
        self._server = server
        self._options = options
        self._read, self._write = socket.socketpair()
        self._read.setblocking(False)
        self._write.setblocking(False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda _number, _frame: None)
        signal.set_wakeup_fd(self._write.fileno(), warn_on_full_buffer=False)
        server.watch(self._read.fileno(), self._arrived)

    def _arrived(self) -> None:
        for number in self._read.recv(64):
            if number == signal.SIGHUP:
                self._reload()
            elif self._server.stopping:
                self._server.hurry()
            else:
                self._server.stop()

    def _reload(self) -> None:
        try:
            self._server.kernel.reload(read_config(self._options))
        except ConfigError as error:
            self._server.kernel.log("kernel", f"the configuration was not taken over: {error}", level="error")

    def close(self) -> None:
        signal.set_wakeup_fd(-1)
        self._server.unwatch(self._read.fileno())
        self._read.close()
        self._write.close()


def watch_parent(server: Server, pid: int) -> int:
    """Stop when the process that started us ends, however it ends."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        raise ConfigError(f"--parent {pid}: there is no such process") from None

    def gone() -> None:
        server.unwatch(fd)
        server.stop(5.0)

    server.watch(fd, gone)
    return fd


def serve(options: argparse.Namespace, config: KernelConfig) -> None:
    """Run the kernel until it is stopped."""
    for folder in (config.paths.models, config.paths.home / "files"):
        make_folder(folder)
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    self_test(context, config.paths.runtime)
    server = Server(config, context, listen_fd=activation_fd())
    signals = Signals(server, options)
    parent = None
    try:
        if options.drivers is not None and server.kernel.missing:
            raise ConfigError("; ".join(server.kernel.missing))
        if options.http and (problem := problem_with(options.http)):
            raise ConfigError(
                f"--http {options.http}: the gateway cannot listen there ({problem}); choose another address"
            )
        if options.parent is not None:
            parent = watch_parent(server, options.parent)
        announce(options.ready_fd)
        server.kernel.log("kernel", f"the kernel runs on {config.paths.socket} (pid {os.getpid()})")
        server.kernel.start_drivers()
        server.run()
    finally:
        signals.close()
        if parent is not None:
            os.close(parent)
        server.close()
        context.term()
        if activation_fd() is None:
            config.paths.socket.unlink(missing_ok=True)


def open_standard_files() -> None:
    """A closed 0, 1 or 2 would be given to the next file or socket, and messages would be written into that."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def take_all_descriptors() -> None:
    """Each connection takes one, and libzmq aborts the process when it has none left to accept another."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def main(argv: Sequence[str] | None = None) -> int:
    open_standard_files()
    take_all_descriptors()
    options = parse(argv)
    os.umask(0o077)
    try:
        config = read_config(options)
        with locked(config):
            serve(options, config)
    except (ConfigError, LlmosError) as error:
        print(f"llmos: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
