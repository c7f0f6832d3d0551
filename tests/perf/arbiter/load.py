"""Programs that keep a model busy from threads of their own: the saturation that the benches of the arbiter need."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from queue import SimpleQueue

import msgspec

from llmos.syscalls import calls
from llmos.syscalls.errors import Busy, LlmosError, OverQuota
from llmos.syscalls.types import Handle, Inference, Sampling, Tokens, WorkClass
from llmos.userland.client import Client
from llmos.userland.reader import Answer


@dataclass
class Kind:
    """What each of a crowd asks for."""

    path: str
    prompt: int = 32
    new: int = 32
    work_class: WorkClass = WorkClass.INTERACTIVE
    timeout: float | None = None
    """Seconds after which an answer is worth nothing."""

    def call(self, model: Handle, number: int) -> calls.Infer:
        ids = [20 + (number * 31 + place * 7) % 200 for place in range(self.prompt)]
        sampling = Sampling(max_tokens=self.new, temperature=0.0, ignore_eos=True)
        return calls.Infer(model=model, input=Tokens(ids=ids), sampling=sampling, work_class=self.work_class)


@dataclass
class Crowd:
    """What became of its requests, counted as they end."""

    answered: int = 0
    tokens: int = 0
    device_ns: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def ask(self, client: Client, kind: Kind, model: Handle, number: int) -> float:
        """One request to its end; seconds to wait before the next, when the kernel said so."""
        try:
            done = client.call(kind.call(model, number), timeout=kind.timeout)
        except LlmosError as error:
            with self.lock:
                self.failed[type(error).__name__] += 1
            return error.retry_after_ms / 1e3 if isinstance(error, Busy | OverQuota) else 0.0
        with self.lock:
            self.answered += 1
            self.tokens += done.usage.new_tokens
            self.device_ns += done.usage.device_ns
        return 0.0


@contextmanager
def crowd(address: str, tenant: str, kind: Kind, at_once: int) -> Iterator[Crowd]:
    """So many requests of one tenant under way all the time, until the block ends."""
    found, stop = Crowd(), threading.Event()
    with Client(address, program=f"bench-{tenant}", tenant=tenant) as client:
        model = client.call(calls.LoadModel(path=kind.path)).handle

        def keep_asking(number: int) -> None:
            while not stop.is_set():
                stop.wait(found.ask(client, kind, model, number))
                number += at_once

        threads = [threading.Thread(target=keep_asking, args=(number,)) for number in range(at_once)]
        for thread in threads:
            thread.start()
        try:
            yield found
        finally:
            stop.set()
            for thread in threads:
                thread.join()


def offered(address: str, kind: Kind, rate: float, seconds: float) -> float:
    """Answers in time, per second, when so many requests arrive a second whatever becomes of them; none is repeated.

    The first `kind.timeout` seconds, in which the queue fills, do not count.
    """
    assert kind.timeout is not None
    ended: list[float] = []
    pending: SimpleQueue[tuple[float, Answer[Inference]] | None] = SimpleQueue()
    with Client(address, program="bench-offered", tenant="offered") as client:
        model = client.call(calls.LoadModel(path=kind.path)).handle
        began = time.monotonic()

        def arrive() -> None:
            for number in range(int(rate * seconds)):
                time.sleep(max(0.0, began + number / rate - time.monotonic()))
                deadline = time.monotonic_ns() + int(kind.timeout * 1e9)
                call = msgspec.structs.replace(kind.call(model, number), deadline=deadline)
                pending.put((time.monotonic() - began, client.submit(call)))
            pending.put(None)

        arrivals = threading.Thread(target=arrive)
        arrivals.start()
        while (one := pending.get()) is not None:
            at, answer = one
            with contextlib.suppress(LlmosError):
                ended.append(at + answer.result().timing.total / 1e9)
        arrivals.join()
    counted = [at for at in ended if kind.timeout <= at <= seconds]
    return len(counted) / (seconds - kind.timeout)


def settled(crowd: Crowd, count: int) -> None:
    """Wait until so many requests of a crowd were answered."""
    until(lambda: crowd.answered >= count)


def until(holds: Callable[[], bool], seconds: float = 120.0) -> None:
    """Wait for a state of the bench's own counters."""
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            raise TimeoutError("the load did not get going")
        time.sleep(0.01)
