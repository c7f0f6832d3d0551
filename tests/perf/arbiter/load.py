"""Load from a process of its own with one thread, so that it takes little of the machine that is measured.

A thread for each request under way, in the process that measures, costs several times as much and stands in the way of
what it measures; `Counts.cpu_s` says what a crowd has cost.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import random
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

from llmos.syscalls import calls
from llmos.syscalls.errors import Busy, LlmosError, OverQuota
from llmos.syscalls.types import Handle, Sampling, Tokens, WorkClass
from llmos.userland.aio import AsyncClient

STOP, COUNT = "stop", "count"
VOCABULARY = 2900
JITTER = 1.25


@dataclass(frozen=True)
class Kind:
    """What each of a crowd asks for. No two prompts are alike, so that nothing of one is found for another."""

    path: str
    prompt: int = 32
    new: int = 32
    work_class: WorkClass = WorkClass.INTERACTIVE
    timeout: float | None = None
    """Seconds after which an answer is worth nothing."""

    def call(self, model: Handle, chance: random.Random) -> calls.Infer:
        sampling = Sampling(max_tokens=self.new, temperature=0.0, ignore_eos=True)
        content = prompt(self.prompt, chance)
        return calls.Infer(model=model, input=content, sampling=sampling, work_class=self.work_class)


def prompt(tokens: int, chance: random.Random) -> Tokens:
    """So many tokens."""
    return Tokens(ids=[20 + chance.randrange(VOCABULARY) for _ in range(tokens)])


@dataclass
class Counts:
    """What became of the requests of a crowd that have ended. `cpu_s`: its processor time."""

    asked: int = 0
    answered: int = 0
    tokens: int = 0
    device_ns: int = 0
    cpu_s: float = 0.0
    failed: Counter[str] = field(default_factory=Counter)
    ended: list[float] = field(default_factory=list)
    """Seconds from the beginning to each answer."""


class Crowd:
    """The process that asks, seen from the one that measures."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe

    def counts(self) -> Counts:
        self._pipe.send(COUNT)
        found: Counts = self._pipe.recv()
        return found

    def settled(self, count: int, seconds: float = 120.0) -> None:
        """Wait until so many requests were answered."""
        self.until(lambda: self.counts().answered >= count, seconds)

    @staticmethod
    def until(holds: Callable[[], bool], seconds: float) -> None:
        end = time.monotonic() + seconds
        while not holds():
            if time.monotonic() > end:
                raise TimeoutError("the load did not get going")
            time.sleep(0.05)


@contextmanager
def crowd(address: str, tenant: str, kind: Kind, at_once: int) -> Iterator[Crowd]:
    """So many requests of one tenant under way all the time, until the block ends."""
    with _process(_keep_asking, address, tenant, kind, at_once) as pipe:
        yield Crowd(pipe)


@contextmanager
def offered(address: str, kind: Kind, rate: float, seconds: float, again: bool) -> Iterator[Callable[[], Counts]]:
    """From when so many requests a second arrive for so long, each of somebody else, whatever becomes of them; what
    came of them, once all have ended. Who is turned away leaves, or with `again` comes back as he is told, unless it is
    too late then."""
    with _process(_arrive, address, "offered", kind, rate, seconds, again) as pipe:
        pipe.recv()
        yield pipe.recv


@contextmanager
def _process(work: Callable[..., Coroutine[Any, Any, None]], *arguments: Any) -> Iterator[Connection]:
    """Such work in a process of its own, which is told to stop at the end of the block."""
    context = multiprocessing.get_context("spawn")
    ours, its = context.Pipe()
    process = context.Process(target=_run, args=(work, its, *arguments), daemon=True)
    process.start()
    its.close()
    try:
        yield ours
        ours.send(STOP)
    finally:
        ours.close()
        process.join()


# ---- in that process


def _run(work: Callable[..., Coroutine[Any, Any, None]], pipe: Connection, *arguments: Any) -> None:
    asyncio.run(work(pipe, *arguments))


class _Asking:
    """Requests of one kind from one client, counted."""

    def __init__(self, client: AsyncClient, kind: Kind, model: Handle, seed: str) -> None:
        self.counts = Counts()
        self._client, self._kind, self._model = client, kind, model
        self._chance = random.Random(seed)
        self._began = time.monotonic()

    async def ask(self, timeout: float | None = None) -> float:
        """One request to its end; seconds to wait before the next, when the kernel said so: what it said and up to a
        quarter more, so that those who were told the same do not come together."""
        counts = self.counts
        counts.asked += 1
        try:
            done = await self._client.call(self._kind.call(self._model, self._chance), timeout=timeout)
        except LlmosError as error:
            counts.failed[type(error).__name__] += 1
            told = error.retry_after_ms / 1e3 if isinstance(error, Busy | OverQuota) else 0.0
            return told * self._chance.uniform(1.0, JITTER)
        counts.answered += 1
        counts.tokens += done.usage.new_tokens
        counts.device_ns += done.usage.device_ns
        counts.ended.append(time.monotonic() - self._began)
        return 0.0

    async def keep_asking(self) -> None:
        while True:
            await asyncio.sleep(await self.ask(self._kind.timeout))

    async def insist(self) -> None:
        """One request that comes again as it is told until it is answered or would be too late."""
        assert self._kind.timeout is not None
        end = time.monotonic() + self._kind.timeout
        while (pause := await self.ask(end - time.monotonic())) and time.monotonic() + pause < end:
            await asyncio.sleep(pause)

    def told(self) -> Counts:
        self.counts.cpu_s = time.process_time()
        return self.counts


async def _asking(address: str, tenant: str, kind: Kind) -> tuple[AsyncClient, _Asking]:
    client = await AsyncClient.connect(address, program=f"bench-{tenant}", tenant=tenant)
    model = (await client.call(calls.LoadModel(path=kind.path))).handle
    return client, _Asking(client, kind, model, tenant + str(time.time_ns()))


async def _keep_asking(pipe: Connection, address: str, tenant: str, kind: Kind, at_once: int) -> None:
    client, asking = await _asking(address, tenant, kind)
    stop = asyncio.Event()

    def heard() -> None:
        if pipe.recv() == STOP:
            asyncio.get_running_loop().remove_reader(pipe.fileno())
            stop.set()
        else:
            pipe.send(asking.told())

    asyncio.get_running_loop().add_reader(pipe.fileno(), heard)
    async with client:
        tasks = [asyncio.create_task(asking.keep_asking()) for _ in range(at_once)]
        await stop.wait()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _arrive(
    pipe: Connection, address: str, tenant: str, kind: Kind, rate: float, seconds: float, again: bool
) -> None:
    client, asking = await _asking(address, tenant, kind)
    async with client:
        pipe.send(None)
        began, tasks = time.monotonic(), []
        for number in range(int(rate * seconds)):
            await asyncio.sleep(max(0.0, began + number / rate - time.monotonic()))
            tasks.append(asyncio.create_task(asking.insist() if again else asking.ask(kind.timeout)))
        await asyncio.gather(*tasks)
    pipe.send(asking.told())
    pipe.recv()
