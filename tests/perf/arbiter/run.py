"""The arbiter's aims, as ratios of one run: a wake over a cold load, first tokens beside batch work, fairness of two
greedy users, what is answered in time under four times the load that can be, and the kernel's own cost of a request.
"""

from __future__ import annotations

import itertools
import os
import random
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
from ipc import start_kernel
from measure import REPEATS, Row, quantile

from llmos.syscalls import calls
from llmos.syscalls.types import Handle, Sampling, Tokens, WorkClass
from llmos.userland.client import Client

from .cost import request_cost
from .load import Counts, Kind, crowd, offered, prompt

SLOTS = 64
SUITES = ("wake", "first", "fairness", "goodput", "cost")
TINY = "/models/tiny"
OVERLOAD, IN_TIME = 4, 3
WAKE_AIM, FIRST_AIM, FAIR_AIM, GOODPUT_AIM, COST_AIM_US = 5.0, 1.5, 0.97, 0.9, 50.0


@dataclass
class Machine:
    """A kernel with the CPU device, and a client of it."""

    address: str
    client: Client
    pid: int
    """Of the kernel."""

    def device_s(self) -> float:
        """Processor time of its hosts so far: the device's, nearly all of it."""
        times = [host.cpu_times() for host in psutil.Process(self.pid).children(recursive=True)]
        return sum(each.user + each.system for each in times)


@contextmanager
def kernel(config: str = "[drivers.cpu0]\nthreads = 1\n") -> Iterator[Machine]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        (folder / "home").mkdir()
        (folder / "home" / "config.toml").write_text(config)
        process, _ = start_kernel(folder, "cpu0,models,files")
        try:
            address = f"ipc://{folder}/run/kernel.sock"
            with Client(address) as client:
                yield Machine(address, client, process.pid)
        finally:
            process.terminate()
            process.wait()


def rows(model: Path, wanted: Sequence[str], quick: bool = False) -> list[Row]:
    """Those wanted of `SUITES`; `model` is a folder large enough for a load to take a while."""
    rounds = 1 if quick else REPEATS
    suites: dict[str, Callable[[], list[Row]]] = {
        "wake": lambda: wake_and_load(model, rounds),
        "first": lambda: first_tokens(rounds, 40 if quick else 100),
        "fairness": lambda: fairness(rounds, 3.0 if quick else 15.0),
        "goodput": lambda: goodput(rounds, 3.0 if quick else 12.0),
        "cost": lambda: cost(rounds),
    }
    return [row for name in SUITES if name in wanted for row in suites[name]()]


# ---- residency


def wake_and_load(model: Path, rounds: int) -> list[Row]:
    """A wake beside a load from a cold disk: the page cache is dropped for the model's files."""
    cold: list[float] = []
    woken: list[float] = []
    with kernel() as machine:
        client = machine.client
        path = _mounted(client, model)
        for _ in range(rounds):
            _drop_cache(model)
            began = time.perf_counter()
            info = client.call(calls.LoadModel(path=path))
            cold.append(time.perf_counter() - began)
            client.call(calls.ControlObject(handle=info.handle, action="sleep"))
            began = time.perf_counter()
            client.call(calls.ControlObject(handle=info.handle, action="wake"))
            woken.append(time.perf_counter() - began)
            client.call(calls.UnloadModel(model=info.handle))
    load, wake = statistics.median(cold), statistics.median(woken)
    ratio = load / wake
    aim = f">= {WAKE_AIM:g} times"
    return [Row("wake, beside a cold load", wake, load, "s", ratio, aim, ratio >= WAKE_AIM, model.parent.name)]


def _mounted(client: Client, folder: Path) -> str:
    system = client.welcome.system
    where = "/bench"
    client.call(calls.MountFs(system=system, path=where, filesystem="models", source=str(folder.parent)))
    return f"{where}/{folder.name}"


def _drop_cache(folder: Path) -> None:
    for file in folder.rglob("*"):
        if file.is_file():
            descriptor = os.open(file, os.O_RDONLY)
            try:
                os.fsync(descriptor)
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(descriptor)


# ---- scheduling


def first_tokens(rounds: int, count: int) -> list[Row]:
    """First tokens of interactive requests: idle, and with more batch work than the device has slots for. The step that
    they may wait for is one of the batch work that runs meanwhile: the time between two tokens of it."""
    idle: list[list[float]] = []
    beside: list[list[float]] = []
    steps: list[float] = []
    costs: list[float] = []
    batch = Kind(TINY, prompt=256, new=128, work_class=WorkClass.BATCH)
    chance = random.Random(1)
    with kernel() as machine:
        handle = machine.client.call(calls.LoadModel(path=TINY)).handle
        _first(machine.client, handle, 10, chance)
        for _ in range(rounds):
            idle.append(sorted(_first(machine.client, handle, count, chance)))
            with crowd(machine.address, "batch", batch, 96) as busy:
                busy.settled(96)
                steps.append(_between(machine.client, handle, chance))
                spent, began = busy.counts().cpu_s, time.monotonic()
                beside.append(sorted(_first(machine.client, handle, count, chance)))
                costs.append((busy.counts().cpu_s - spent) / (time.monotonic() - began))
    alone, loaded, step = quantile(idle, 0.95) * 1e3, quantile(beside, 0.95) * 1e3, statistics.median(steps) * 1e3
    ratio, bound = loaded / alone, FIRST_AIM * alone + step
    aim = f"<= {FIRST_AIM:g} x idle + a step of {step:.1f} ms = {bound:.1f} ms"
    p50 = f"p50 {quantile(beside, 0.5) * 1e3:.1f} ms, idle {quantile(idle, 0.5) * 1e3:.1f} ms"
    note = f"peer: idle; {p50}; the load took {statistics.median(costs):.0%} of a core"
    return [Row("first token beside batch work, p95", loaded, alone, "ms", ratio, aim, loaded <= bound, note)]


def _stream(
    client: Client, model: Handle, tokens: Tokens, new: int, work_class: WorkClass = WorkClass.INTERACTIVE
) -> list[float]:
    """Seconds until each token arrived. A lower class goes first in its class."""
    sampling = Sampling(max_tokens=new, temperature=0.0, ignore_eos=True)
    call = calls.InferStream(
        model=model, input=tokens, sampling=sampling, work_class=work_class,
        priority=0 if work_class == WorkClass.INTERACTIVE else 10,
    )  # fmt: skip
    began = time.perf_counter()
    stream = client.stream(call)
    arrived = [time.perf_counter() - began for _chunk in stream]
    _ = stream.result
    return arrived


def _first(client: Client, model: Handle, count: int, chance: random.Random) -> list[float]:
    """Of so many requests one after the other, with a pause of another length before each."""
    seconds = []
    for _ in range(count):
        time.sleep(chance.uniform(0.005, 0.03))
        seconds.append(_stream(client, model, prompt(32, chance), 1)[0])
    return seconds


def _between(client: Client, model: Handle, chance: random.Random) -> float:
    """The median time between two tokens of batch work now: what a step takes."""
    arrived = _stream(client, model, prompt(32, chance), 65, WorkClass.BATCH)
    return statistics.median(later - sooner for sooner, later in itertools.pairwise(arrived))


def fairness(rounds: int, seconds: float) -> list[Row]:
    """Two users who always have more than their share under way; one asks for four times as long answers."""
    indices = []
    with kernel() as machine:
        for _ in range(rounds):
            short, long = Kind(TINY, new=16), Kind(TINY, new=64)
            with crowd(machine.address, "a", short, 128) as one, crowd(machine.address, "b", long, 128) as other:
                one.settled(128)
                other.settled(64)
                before = one.counts().device_ns, other.counts().device_ns
                time.sleep(seconds)
                got = [one.counts().device_ns - before[0], other.counts().device_ns - before[1]]
            indices.append(jain(got))
    index = statistics.median(indices)
    aim = f">= {FAIR_AIM:g}"
    return [Row("fairness of two greedy users", index, None, "", None, aim, index >= FAIR_AIM, "Jain, device seconds")]


def jain(shares: Sequence[float]) -> float:
    """Jain's index of fairness: 1 when all got the same, 1/n when one got everything (Jain, Chiu, Hawe 1984)."""
    return sum(shares) ** 2 / (len(shares) * sum(share * share for share in shares))


@dataclass
class Answered:
    """What one part of a round gave."""

    rate: float
    """Answers in time a second."""
    device: float
    """The part of a core that the device's host had."""


def goodput(rounds: int, seconds: float) -> list[Row]:
    """Requests answered in time, per second: as many under way as there are slots, which gives the most, then four
    times what that gives arriving, each of somebody else. In one row who is turned away leaves, in the other he comes
    again as he is told. An answer is in time after `IN_TIME` times what requests run when all slots are taken.
    """
    kind = Kind(TINY, prompt=64, new=64)
    found: dict[bool, list[tuple[Answered, Answered]]] = {False: [], True: []}
    told: dict[bool, Counter[str]] = {False: Counter(), True: Counter()}
    with kernel() as machine:
        for number in range(2 * rounds):
            again = number % 2 == 1
            most = _full(machine, kind, seconds)
            over, counts = _overload(machine, kind, most.rate, seconds, again)
            found[again].append((most, over))
            told[again].update(counts.failed)
            told[again]["asked"] += counts.asked
    return [_goodput_row(name, found[again], told[again]) for again, name in ((False, "leave"), (True, "come again"))]


def _full(machine: Machine, kind: Kind, seconds: float) -> Answered:
    """As many under way as there are slots."""
    with crowd(machine.address, "load", kind, SLOTS) as busy:
        busy.settled(2 * SLOTS)
        before, began, spent = busy.counts().answered, time.monotonic(), machine.device_s()
        time.sleep(seconds)
        answered, took = busy.counts().answered - before, time.monotonic() - began
        return Answered(answered / took, (machine.device_s() - spent) / took)


def _overload(machine: Machine, kind: Kind, most: float, seconds: float, again: bool) -> tuple[Answered, Counts]:
    """What comes of `OVERLOAD` times as many as can be answered, once the queue is as long as it gets."""
    in_time = IN_TIME * SLOTS / most
    kind = replace(kind, timeout=in_time)
    with offered(machine.address, kind, OVERLOAD * most, in_time + seconds, again) as ended:
        time.sleep(in_time)
        spent, began = machine.device_s(), time.monotonic()
        time.sleep(seconds)
        device = (machine.device_s() - spent) / (time.monotonic() - began)
        counts = ended()
    counted = [at for at in counts.ended if in_time <= at <= in_time + seconds]
    return Answered(len(counted) / seconds, device), counts


def _goodput_row(what: str, found: Sequence[tuple[Answered, Answered]], told: Counter[str]) -> Row:
    peaks, overs = [most for most, _ in found], [over for _, over in found]
    peak, ours = (statistics.median(each.rate for each in part) for part in (peaks, overs))
    before, then = (statistics.median(each.device for each in part) for part in (peaks, overs))
    ratios = [over.rate / most.rate for most, over in found]
    ratio, aim = statistics.median(ratios), f">= {GOODPUT_AIM:g}"
    note = (
        f"rounds {' '.join(f'{each:.2f}' for each in ratios)}; the device had {before:.2f}, then {then:.2f} of a "
        f"core; {', '.join(f'{name} {count}' for name, count in told.most_common())}"
    )
    name = f"answered in time at 4x overload, the refused {what}"
    return Row(name, ours, peak, "/s", ratio, aim, ratio >= GOODPUT_AIM, note)


# ---- cost


def cost(rounds: int) -> list[Row]:
    """Processor time of the pure cores for one request; what it takes of a whole call is in the bench `ipc`."""
    microseconds = statistics.median(request_cost() for _ in range(rounds)) * 1e6
    aim, met = f"< {COST_AIM_US:g} us", microseconds < COST_AIM_US
    return [Row("the arbiter's own cost of a request", microseconds, None, "us", None, aim, met)]
