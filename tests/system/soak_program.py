"""A program of the soak test: threads that ask models for all kinds of things and write down each request's end.

Run as `python soak_program.py ADDRESS SEED MODELS`. One line of stdout for each thing that happens: `asked N`, then
exactly one `ended N HOW` for it. SIGTERM lets what is under way end.
"""

from __future__ import annotations

import random
import signal
import sys
import threading
from itertools import count

from llmos.syscalls import calls
from llmos.syscalls.errors import Busy, LlmosError, NoDeviceMemory, OverQuota, Unavailable
from llmos.syscalls.types import Handle, LoadOptions, Sampling, Text, WorkClass
from llmos.userland.client import Client

THREADS = 3
WORDS = ("The for statement", "A generator is", "Modules are", "An exception", "The with statement", "Dictionaries")


class Program:
    """Asks until it is told to stop."""

    def __init__(self, client: Client, models: int, seed: int) -> None:
        self._client = client
        self._stop = threading.Event()
        self._numbers = count(1)
        self._lock = threading.Lock()
        self._seed = seed
        self._handles: dict[int, Handle] = {}
        self._models = models

    def stop(self) -> None:
        self._stop.set()

    def run(self) -> None:
        threads = [threading.Thread(target=self._ask_on, args=(number,)) for number in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive():
                thread.join(0.1)  # so that a signal is seen
        print("done", flush=True)

    def _ask_on(self, thread: int) -> None:
        choose = random.Random(self._seed * 100 + thread)
        while not self._stop.is_set():
            with self._lock:
                number = next(self._numbers)
                print(f"asked {number}", flush=True)
            how, pause = self._one(choose)
            with self._lock:
                print(f"ended {number} {how}", flush=True)
            self._stop.wait(pause)

    def _one(self, choose: random.Random) -> tuple[str, float]:
        which = min(int(choose.paretovariate(0.7)) - 1, self._models - 1)
        try:
            model = self._model(which)
            self._ask(choose, model)
        except (Busy, OverQuota, Unavailable) as error:
            return type(error).__name__, max(error.retry_after_ms, 10) / 1e3
        except LlmosError as error:
            with self._lock:  # else another thread's line would begin in the middle of this one
                print(f"said {type(error).__name__}: {error}", flush=True)
            return type(error).__name__, 0.5 if isinstance(error, NoDeviceMemory) else 0.0
        return "ok", 0.0

    def _model(self, which: int) -> Handle:
        if which not in self._handles:
            options = LoadOptions(max_context=512)
            self._handles[which] = self._client.call(
                calls.LoadModel(path=f"/models/m{which:02}", options=options), timeout=60
            ).handle
        return self._handles[which]

    def _ask(self, choose: random.Random, model: Handle) -> None:
        given = Text(text=choose.choice(WORDS) + " " * choose.randrange(3))
        work_class = choose.choice(list(WorkClass))
        kind = choose.randrange(4)
        sampling = Sampling(max_tokens=choose.randint(1, 48), temperature=choose.choice((0.0, 1.0)), seed=1)
        if kind == 0:
            stream = self._client.stream(
                calls.InferStream(model=model, input=given, sampling=sampling, work_class=work_class), timeout=60
            )
            for _chunk in stream:
                pass
            _ = stream.result
        elif kind == 1:
            self._client.call(calls.Embed(model=model, input=given, work_class=work_class), timeout=60)
        else:
            self._client.call(
                calls.Infer(model=model, input=given, sampling=sampling, work_class=work_class), timeout=60
            )


def main() -> None:
    address, seed, models = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    with Client(address, program=f"soak-{seed}", tenant=f"t{seed % 3}") as client:
        program = Program(client, models, seed)
        signal.signal(signal.SIGTERM, lambda _number, _frame: program.stop())
        program.run()


if __name__ == "__main__":
    main()
