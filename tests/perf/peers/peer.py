"""What every engine looks like to the bench: jobs go in, tokens come out with the time of each.

Only the standard library is imported here: each peer runs in an environment of its own.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

BATCH = 32
"""Requests that a peer without continuous batching gets at a time, at most."""


@dataclass(frozen=True)
class Job:
    """A request: these token ids in, exactly so many out.

    It arrives `at` seconds after the start, or as soon as every job with neither has `after` tokens.
    """

    prompt: Sequence[int]
    new_tokens: int
    at: float = 0.0
    after: int = 0
    adapter: str = ""


@dataclass
class Answer:
    """What came out: tokens, and for each the seconds since the start of the run; `submitted` likewise."""

    tokens: list[int] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    submitted: float = 0.0


@dataclass(frozen=True)
class Room:
    """What a peer has to make room for: tokens of one request, requests at a time, tokens of all together; and the bits
    that its weights are to have."""

    context: int
    requests: int
    tokens: int
    threads: int = 2
    bits: int = 16


Step = Sequence[tuple[int, Sequence[int]]]
"""Numbers of jobs with the tokens that each has got."""


class Peer(Protocol):
    """An engine under measurement. `continuous`: it takes requests at any time, others wait for its batch to end.

    Where it has a method `close`, that gives back what does not end with the process.
    """

    continuous: bool

    def load(self, folder: Path, room: Room) -> Mapping[str, Any]:
        """Load the model in a folder as transformers saves it; facts to be shown with the figures."""

    def run(self, jobs: Sequence[Job], last: int | None = None) -> list[Answer]:
        """Serve jobs as they arrive; the run ends with all of them, or with job `last`, others are cancelled then."""


def generate(peer: Peer, prompts: Sequence[Sequence[int]], new_tokens: int) -> list[Answer]:
    """All prompts at once."""
    return peer.run([Job(prompt, new_tokens) for prompt in prompts])


class Clock:
    """Seconds since the start of a run."""

    def __init__(self) -> None:
        self._began = time.perf_counter()

    def __call__(self) -> float:
        return time.perf_counter() - self._began

    def wait(self, until: float) -> None:
        time.sleep(max(0.0, until - self()))


class Continuous(ABC):
    """A peer that takes requests between any two steps."""

    continuous = True

    @abstractmethod
    def submit(self, number: int, job: Job) -> None:
        """Accept a job."""

    @abstractmethod
    def step(self) -> Step:
        """One step, or as long as it takes until there are tokens."""

    @abstractmethod
    def cancel(self, numbers: Sequence[int]) -> None:
        """End jobs that have not ended; no step tells of them any more."""

    def run(self, jobs: Sequence[Job], last: int | None = None) -> list[Answer]:
        clock, answers = Clock(), [Answer() for _ in jobs]
        waiting = sorted(range(len(jobs)), key=lambda number: jobs[number].at)
        running: set[int] = set()
        while waiting or running:
            for number in [number for number in waiting if _due(number, jobs, answers, clock())]:
                answers[number].submitted = clock()
                self.submit(number, jobs[number])
                waiting.remove(number)
                running.add(number)
            if not running:
                clock.wait(jobs[waiting[0]].at)
                continue
            for number, tokens in self.step():
                now = clock()
                answers[number].tokens.extend(tokens)
                answers[number].times.extend(now for _ in tokens)
                if len(answers[number].tokens) >= jobs[number].new_tokens:
                    running.discard(number)
            if last is not None and len(answers[last].tokens) >= jobs[last].new_tokens:
                self.cancel(sorted(running))
                break
        return answers


class Batched(ABC):
    """A peer that takes all waiting requests as one padded batch, and the next ones when that has ended."""

    continuous = False

    @abstractmethod
    def batch(self, prompts: Sequence[Sequence[int]], new_tokens: int, emit: Callable[[Sequence[int]], None]) -> None:
        """Generate so many tokens for every prompt; `emit` takes the next token of each, once a step."""

    def run(self, jobs: Sequence[Job], last: int | None = None) -> list[Answer]:
        clock, answers = Clock(), [Answer() for _ in jobs]
        waiting = sorted(range(len(jobs)), key=lambda number: jobs[number].at)
        while waiting:
            clock.wait(jobs[waiting[0]].at)
            now = clock()
            taken = [number for number in waiting if jobs[number].at <= now][:BATCH]
            waiting = [number for number in waiting if number not in taken]
            for number in taken:
                answers[number].submitted = jobs[number].at

            def emit(tokens: Sequence[int], taken: Sequence[int] = taken) -> None:
                at = clock()
                for number, token in zip(taken, tokens, strict=True):
                    if len(answers[number].tokens) < jobs[number].new_tokens:
                        answers[number].tokens.append(token)
                        answers[number].times.append(at)

            self.batch([jobs[number].prompt for number in taken], max(jobs[n].new_tokens for n in taken), emit)
        return answers


def _due(number: int, jobs: Sequence[Job], answers: Sequence[Answer], now: float) -> bool:
    job = jobs[number]
    if not job.after:
        return job.at <= now
    first = [len(answer.tokens) for answer, each in zip(answers, jobs, strict=True) if not each.after]
    return min(first) >= job.after
