"""The other ranks of a device, seen from the host process: one process each, watched from the first to the last moment.

This process is rank 0. What happens to one rank happens to all: when one ends or falls silent, the collectives that the
others wait in never end, so this process ends too, and says why.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from multiprocessing import connection
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any

import torch

from ...contract import ProgressSink
from . import coding, silence, team
from .messages import Answer, Beat, Broken, End, Failed, Join, Joined, Meet, Order
from .team import RankLost

PROGRAM = "llmos.drivers.engine.parallel.rank"
EXIT_FAULT = 70
MEET_S = 300.0
"""Ranks import torch and transformers first, and may have something to compile."""
LOAD_S = 1800.0
"""What a share may take to be read by the slowest after the first."""
COLLECTIVE_S = 60.0
"""What the others may take to come to a sum. A step is over in far less, and the kernel watches that."""
SILENCE_S = 60.0
"""A rank beats often, and ends with its process: one that is silent for so long, and has computed nothing meanwhile, is
stuck. On a machine that is short of processors a rank may be silent for many seconds, and live."""
HANG_S = 600.0
"""So long no call keeps a rank from beating, however busy it is."""
WATCH_S = 0.5
END_S = 5.0
PROGRESS_S = 1.0
STDERR = 2


@dataclass(frozen=True)
class Crew:
    """Which ranks there are: how many, and what each is started with; see `messages.Join`."""

    ranks: int
    parts: str
    name: str
    threads: int
    config: Mapping[str, Any]
    device: torch.device


@dataclass
class _Rank:
    """One process and this end of its socket pair."""

    number: int
    process: subprocess.Popen[bytes]
    pipe: connection.Connection
    silence: silence.Silence | None = None
    """Since it was heard for the first time."""
    answers: SimpleQueue[Answer] = field(default_factory=SimpleQueue)
    process_bytes: int = 0

    def __str__(self) -> str:
        return f"rank {self.number} (process {self.process.pid})"


def end_process(cause: str) -> None:
    """Fail-stop: the last line that a host writes is the cause that its kernel shows."""
    print(cause, file=sys.stderr, flush=True)
    os._exit(EXIT_FAULT)


class Ranks:
    """From `start` to `stop`. All methods belong to the work thread."""

    def __init__(self, crew: Crew, lost: Callable[[str], None] = end_process) -> None:
        """`lost` is called with the cause, in a thread of its own, when a rank is lost."""
        self.crew = crew
        self.team: team.Joined | None = None
        self._lost = lost
        self._others: list[_Rank] = []
        self._ending = threading.Event()
        self._watcher: threading.Thread | None = None

    @property
    def process_bytes(self) -> int:
        """What the other processes hold in all, as they said last."""
        return sum(rank.process_bytes for rank in self._others)

    def start(self) -> None:
        """Start the others, which takes them a while."""
        crew = self.crew
        for number in range(1, crew.ranks):
            rank = self._start(number)
            self._others.append(rank)
            self._send(rank, Join(number, crew.ranks, crew.parts, crew.name, crew.threads, crew.config))
        self._watcher = threading.Thread(target=self._watch, name="ranks", daemon=True)
        self._watcher.start()

    def meet(self, progress: ProgressSink) -> None:
        """Meet the others, if that has not been. Raises RankLost."""
        if self.team is not None:
            return
        crew = self.crew
        self.expect(Joined, MEET_S, progress)
        with team.meeting_place() as meeting:
            self.tell(Meet(str(meeting), COLLECTIVE_S))
            self.team = team.join(meeting, 0, crew.ranks, crew.device, COLLECTIVE_S)

    def tell(self, order: Order) -> None:
        """Say something to all. Raises RankLost."""
        for rank in self._others:
            self._send(rank, order)

    def expect(self, wanted: type[Answer], seconds: float, progress: ProgressSink, key: int | None = None) -> list[Any]:
        """What each answers, about the model `key` if it is about one; answers about others are old and left out.

        Raises what one of them failed with, and RankLost for one that does not answer in time.
        """
        due = time.monotonic() + seconds
        found = [self._answer(rank, wanted, due, progress, key) for rank in self._others]
        failed = [each.error for each in found if isinstance(each, Failed)]
        if failed:
            raise failed[0]
        return found

    def stop(self) -> None:
        """End the others and leave the team."""
        self._ending.set()
        for rank in self._others:
            with contextlib.suppress(OSError):  # it has ended by itself
                rank.pipe.send_bytes(coding.encode(End()))
        for rank in self._others:
            try:
                rank.process.wait(END_S)
            except subprocess.TimeoutExpired:
                rank.process.kill()
                rank.process.wait()
        if self._watcher is not None:
            self._watcher.join()
        for rank in self._others:
            rank.pipe.close()
        team.leave()
        self._others, self._watcher, self.team = [], None, None
        self._ending.clear()

    def _start(self, number: int) -> _Rank:
        ours, theirs = connection.Pipe()
        with theirs:
            environ = os.environ | {"LLMOS_PARENT_PID": str(os.getpid())}
            process = subprocess.Popen(
                [sys.executable, "-m", PROGRAM, str(theirs.fileno())], pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL, stdout=STDERR, env=environ,
            )  # fmt: skip
        return _Rank(number, process, ours)

    def _send(self, rank: _Rank, order: Order) -> None:
        try:
            rank.pipe.send_bytes(coding.encode(order))
        except OSError as error:
            raise RankLost(self._ended(rank)) from error

    def _answer(
        self, rank: _Rank, wanted: type[Answer], due: float, progress: ProgressSink, key: int | None
    ) -> Answer:
        while True:
            try:
                found = rank.answers.get(timeout=PROGRESS_S)
            except Empty:
                progress(0, 0, "", "ranks")
                if time.monotonic() > due:
                    raise RankLost(f"{rank} is not ready in time") from None
                continue
            if getattr(found, "key", None) == key and isinstance(found, wanted | Failed):
                return found

    # ---- the watch

    def _watch(self) -> None:
        """Take what the ranks say off their pipes, and look whether they live."""
        cause = ""
        while not (cause or self._ending.is_set()):
            cause = self._listen()
        if not self._ending.is_set():
            self._lost(f"{self.crew.name}: {cause}")

    def _listen(self) -> str:
        """What is wrong with a rank now, after hearing what they have to say; empty when they live."""
        ready = connection.wait([rank.pipe for rank in self._others], WATCH_S)
        for rank in self._others:
            if rank.pipe in ready:
                try:
                    said = coding.said(rank.pipe.recv_bytes())
                except (EOFError, OSError):
                    return self._ended(rank)
                if isinstance(said, Broken):
                    return f"{rank} failed: {said.cause}"
                self._hear(rank, said)
            elif rank.silence is not None and rank.silence.stuck(time.monotonic()):
                return f"{rank} gave no sign of life for {rank.silence.seconds:.0f} s"
        return ""

    def _hear(self, rank: _Rank, said: Answer | Beat) -> None:
        rank.silence = silence.Silence(SILENCE_S, HANG_S, partial(silence.busy_seconds, rank.process.pid))
        if isinstance(said, Beat):
            rank.process_bytes = said.process_bytes
        else:
            rank.answers.put(said)

    @staticmethod
    def _ended(rank: _Rank) -> str:
        try:
            status = rank.process.wait(END_S)
        except subprocess.TimeoutExpired:
            return f"{rank} closed its connection"
        how = f"killed by signal {-status}" if status < 0 else f"status {status}"
        return f"{rank} ended: {how}"
