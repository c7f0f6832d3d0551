"""A kernel of one's own: started with the program, gone with it, however the program ends.

The kernel watches this process and stops when it is gone. A shell around it removes its folder afterwards, so that even
`kill -9` of the program leaves nothing; should the shell be killed too, the next start sweeps up.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from .places import kernel_address

START_S = 30.0
"""How long a kernel may take until it accepts calls."""
STOP_S = 10.0
"""How long a kernel may take to stop before it is killed."""
_PREFIX = "llmos-boot-"
_LOG_TAIL = 2000
_ENDING_S = 2.0
"""How long a kernel that does not answer any more may take to say why."""
_THEN_REMOVE = 'memory=$1; shift; "$@"; status=$?; rm -rf -- "$0" "$memory"; exit $status'


class BootFailed(RuntimeError):
    """A private kernel did not start; the text ends with what it said last."""


class PrivateKernel:
    """A kernel process of this program, with a runtime folder of its own.

    Args:
        drivers: names of the drivers to start; None starts all that are installed.
        config: a TOML configuration file.
        home: the folder of models and journal; None shares the user's.

    Raises:
        BootFailed: it ended, or was not ready in time.
    """

    def __init__(
        self, drivers: Sequence[str] | None = None, config: str | Path | None = None, home: str | Path | None = None
    ) -> None:
        sweep()
        prefix = f"{_PREFIX}{os.getpid()}-"
        self.folder = Path(tempfile.mkdtemp(prefix=prefix))
        memory = _memory()
        folders = (self.folder, Path(tempfile.mkdtemp(prefix=prefix, dir=memory)) if memory.is_dir() else self.folder)
        arguments = ["--runtime", str(self.folder), "--parent", str(os.getpid())]
        if drivers is not None:
            arguments += ["--drivers", ",".join(drivers)]
        for flag, value in (("--config", config), ("--home", home)):
            if value is not None:
                arguments += [flag, str(Path(value).expanduser().absolute())]
        with contextlib.ExitStack() as undo:
            undo.callback(_remove, folders)
            self._log = undo.enter_context(tempfile.TemporaryFile())
            self._shell, ready = _spawn(folders, arguments, self._log)
            undo.callback(_kill, self._shell)
            undo.callback(os.close, ready)
            self.pid = _wait_ready(self._shell, ready, self._log)
            os.close(ready)
            undo.pop_all()
        self._finalizer = weakref.finalize(self, _end, self._shell, self.pid, folders, self._log, os.getpid())

    @property
    def address(self) -> str:
        """Where to connect."""
        return kernel_address(self.folder)

    def last_words(self) -> str:
        """How the kernel ended, and what it said last; for when the connection to it broke."""
        if not self._finalizer.alive:
            return "it was stopped"
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._shell.wait(_ENDING_S)
        return f"{_how(self._shell.returncode)}. It said:\n{_tail(self._log)}"

    def stop(self) -> None:
        """End the kernel and remove its folder. Does nothing the second time."""
        self._finalizer()


def _memory() -> Path:
    """The memory file system for buffers."""
    return Path(os.environ.get("LLMOS_SHM_DIR") or "/dev/shm")


def _remove(folders: tuple[Path, Path]) -> None:
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def _spawn(folders: tuple[Path, Path], arguments: list[str], log: IO[bytes]) -> tuple[subprocess.Popen[bytes], int]:
    folder, memory = map(str, folders)
    ready, theirs = os.pipe()
    command = [sys.executable, "-m", "llmos.kernel", *arguments, "--ready-fd", str(theirs)]
    try:
        # A session of its own: Ctrl-C at the terminal is for this program, not for its kernel.
        shell = subprocess.Popen(
            ["/bin/sh", "-c", _THEN_REMOVE, folder, memory, *command], env={**os.environ, "LLMOS_SHM_DIR": memory},
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=(theirs,), start_new_session=True,
        )  # fmt: skip
    except BaseException:
        os.close(ready)
        raise
    finally:
        os.close(theirs)
    return shell, ready


def _wait_ready(shell: subprocess.Popen[bytes], ready: int, log: IO[bytes]) -> int:
    """The pid of the kernel, once it accepts calls."""
    readable, _, _ = select.select([ready], [], [], START_S)
    said = re.fullmatch(rb"READY (\d+)\n", os.read(ready, 100)) if readable else None
    if said is not None:
        return int(said[1])
    what = f"ended at once with status {shell.wait()}" if readable else f"was not ready after {START_S:g} s"
    raise BootFailed(f"the kernel {what}. It said:\n{_tail(log)}")


def _how(status: int | None) -> str:
    """The end of a kernel, from the status of its shell (128 and the number of a signal that ended it)."""
    if status is None:
        return "it still runs but does not answer"
    ended_by = {128 + number: number.name for number in signal.Signals}
    return f"it was ended by {ended_by[status]}" if status in ended_by else f"it ended with status {status}"


def _tail(log: IO[bytes]) -> str:
    """The last lines, without the priorities for a service manager. The kernel's own place in the file stays."""
    size = os.fstat(log.fileno()).st_size
    start = max(0, size - _LOG_TAIL)
    text = os.pread(log.fileno(), _LOG_TAIL, start).decode("utf-8", "replace")
    whole = text.partition("\n")[2] if start else text
    return re.sub(r"^<\d>", "", whole, flags=re.MULTILINE).strip() or "nothing"


def _kill(shell: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(shell.pid, signal.SIGKILL)
    shell.wait()


def _end(
    shell: subprocess.Popen[bytes], pid: int, folders: tuple[Path, Path], log: IO[bytes], owner: int
) -> None:
    """Stop, wait, then kill; in a forked child the kernel is not ours to end."""
    log.close()
    if owner != os.getpid():
        return
    if shell.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        try:
            shell.wait(STOP_S)
        except subprocess.TimeoutExpired:
            _kill(shell)
    _remove(folders)


def sweep() -> None:
    """Remove the folders of private kernels whose program and shell were killed."""
    for place in (Path(tempfile.gettempdir()), _memory()):
        for folder in place.glob(f"{_PREFIX}*-*"):
            owner = folder.name.removeprefix(_PREFIX).partition("-")[0]
            with contextlib.suppress(OSError):
                if owner.isdigit() and folder.stat().st_uid == os.getuid() and not Path(f"/proc/{owner}").exists():
                    shutil.rmtree(folder, ignore_errors=True)
