"""The process of one job that brings, sends or makes a model: `python -m llmos.drivers.worker --job-fd N`.

The kernel starts one per job, so that a long download or an hour of quantizing blocks no file system and no device, can
be paused and ended by signals, and costs nobody anything when it crashes. The job comes as JSON on a descriptor; what
happens goes to stdout, one JSON object a line: `{"progress": {...}}`, and at the end `{"value": {...}}` or
`{"error": {...}}`.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import FrameType
from typing import Any

import msgspec

from llmos.syscalls.driver import Located
from llmos.syscalls.errors import LlmosError

from . import contract, convert, plugins
from .host import split_settings
from .parent import end_with_parent
from .transform import making
from .transform.kinds import KINDS

TELL_S = 0.2
"""Progress is told at most so often."""
EXIT_ASKED = 143
NICE = 10
"""How far what computes for long stands back behind what answers people; setpriority(2)."""
LONGEST = 1500
"""Bytes of a line, of which the kernel reads up to 2000."""


class Job(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is to be done. `sources` are located files or URLs; with a `target` (a URL), `path` is sent to it.

    `names` are the paths by which a program knows the sources.
    """

    driver: str
    source: str
    config: dict[str, Any] = {}
    path: str
    sources: list[Located | str] = []
    names: list[str] = []
    target: str = ""
    recipe: dict[str, Any] = {}


def read_job(descriptor: int) -> Job:
    """The job from a descriptor, which is closed. Raises msgspec.DecodeError."""
    with os.fdopen(descriptor, "rb") as file:
        return msgspec.json.decode(file.read(), type=Job)


class Teller:
    """Progress as lines, at most five a second, from any thread."""

    def __init__(self, write: Callable[[Mapping[str, Any]], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._write, self._clock = write, clock
        self._at = float("-inf")
        self._latest: dict[str, Any] | None = None
        self._lock = threading.Lock()

    def __call__(self, done: int, total: int, unit: str = "bytes", stage: str = "") -> None:
        with self._lock:
            self._latest = {"done": done, "total": total, "unit": unit, "stage": stage[:100]}
        self.flush()

    def flush(self) -> None:
        """Write the latest that was not written yet, if it is time to."""
        with self._lock:
            now = self._clock()
            if self._latest is not None and now - self._at >= TELL_S:
                self._at = now
                self._write({"progress": self._latest})
                self._latest = None

    def keep_flushing(self) -> None:
        """What comes right after something else is told a little later, also when nothing follows. Never returns."""
        while True:
            time.sleep(TELL_S)
            self.flush()


def write_line(said: Mapping[str, Any]) -> None:
    """One object on stdout, by one write; on a line of its own whatever a library has printed before."""
    os.write(sys.stdout.fileno(), b"\n" + msgspec.json.encode(said) + b"\n")


def shortened(error: LlmosError) -> dict[str, Any]:
    """An error that fits a line."""
    whole = error.to_wire()
    if len(msgspec.json.encode(whole)) <= LONGEST:
        return whole
    texts = {name: value[:100] if isinstance(value, str) else value for name, value in whole["fields"].items()}
    plain = {name: value for name, value in texts.items() if isinstance(value, str | int | float)}
    return {**whole, "message": whole["message"][:400], "fields": plain, "reasons": []}


def work(job: Job, progress: contract.ProgressSink) -> Mapping[str, Any]:
    """Do it. Raises LlmosError."""
    plugin = plugins.load(job.driver)
    system = plugin.filesystems[job.driver](job.source, split_settings(job.config)[1])
    system.progress = progress
    if job.target:
        return system.send(job.path, job.target, job.recipe, progress)
    sources = [source if isinstance(source, str) else convert.to_source(source) for source in job.sources]
    if job.recipe.get("kind") in KINDS:
        os.nice(NICE)
        known = zip(sources, job.names, strict=True)  # errors are to name what the program has named
        located = [replace(source, path=name) for source, name in known if isinstance(source, contract.ModelSource)]
        return making.make(system, job.path, located, job.names, job.recipe, progress)
    return system.bring(job.path, sources, job.recipe, progress)


def _asked(_number: int, _frame: FrameType | None) -> None:
    raise SystemExit(EXIT_ASKED)  # on the way out, what is half done is discarded


def main(argv: Sequence[str] | None = None) -> int:
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _asked)
    parser = argparse.ArgumentParser(prog="python -m llmos.drivers.worker", description="Do one job.")
    parser.add_argument("--job-fd", type=int, required=True, metavar="N", help="where the job is read")
    job = read_job(parser.parse_args(argv).job_fd)
    teller = Teller(write_line)
    threading.Thread(target=teller.keep_flushing, name="progress", daemon=True).start()
    try:
        value = work(job, teller)
    except LlmosError as error:
        write_line({"error": shortened(error)})
        return 1
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it is done
    write_line({"value": value})
    return 0


def _run() -> None:
    """End with the status of `main`; threads that still wait for the network are not waited for."""
    try:
        status = main()
    except SystemExit as asked:
        status = asked.code if isinstance(asked.code, int) else EXIT_ASKED
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    _run()
