"""Twelve models that do not fit together, under a mixed load, while hosts and programs are killed and a program outside
takes memory that was promised: nothing runs out of memory, every request is answered once, the ledger ends as it began.
"""

from __future__ import annotations

import random
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
import transformers
from system.kernel_process import KernelProcess, eventually, kill, running
from system.raw_client import RawClient

TINY = Path(__file__).parents[2] / "drivers" / "filesystems" / "models" / "bundled" / "tiny"
HERE = Path(__file__).parent
MODELS, FIT, PROGRAMS = 12, 4, 4
SEED = 20261122
MIB = 1 << 20
RUNTIME = 128 * MIB
"""What the process of the device may hold beside models."""
SLACK = 2048 * MIB
"""What other programs of the machine may take meanwhile without harm; the one of this test takes it and more."""
LOOK_S = 2.0
"""Longer than between two looks of the kernel at the machine: what was taken is counted by then."""
LATEST_S = 30.0
"""What a hog may take longer than its turn, until memory is short: on a busy machine others give back as it takes."""
HELD = ("weights", "kv", "workspace", "lease", "tuning")
EXPECTED = {"ok", "PeerGone", "Unavailable", "Busy", "DriverFailed", "TimedOut", "NoDeviceMemory"}
"""How a request with a deadline may end while hosts are killed under it, and others have the memory."""


@dataclass
class Soaking:
    """A program of the load and what it wrote."""

    process: subprocess.Popen[str]
    log: Path
    killed: bool = False

    def ends(self) -> tuple[Counter[str], Counter[str], Counter[str]]:
        """Requests asked, ended, and how they ended."""
        text = self.log.read_text()
        asked = Counter(re.findall(r"^asked (\d+)$", text, re.M))
        ended = Counter(re.findall(r"^ended (\d+) \w+$", text, re.M))
        return asked, ended, Counter(re.findall(r"^ended \d+ (\w+)$", text, re.M))


@dataclass
class Kills:
    """What was done to the system, in order; printed, and so in the report of a failure."""

    began: float = field(default_factory=time.monotonic)
    hosts: int = 0
    programs: int = 0
    hogs: int = 0
    shortages: int = 0
    """How often the kernel saw that bytes which it had promised were taken."""
    evictions: int = 0
    """How many models left because of that."""

    def note(self, what: str) -> None:
        print(f"{time.monotonic() - self.began:6.1f} s  {what}", flush=True)


@dataclass
class Hog:
    """A program outside, and the bytes that it has."""

    process: subprocess.Popen[str]
    beyond: int
    """What it takes of the memory that was promised, beside all that is free."""
    bytes: int = 0

    def press(self, free: int) -> None:
        """Take all that is free, and what was promised."""
        self.take(self.bytes + free + self.beyond)

    def take(self, count: int) -> None:
        """Have so many bytes, no matter how many it had."""
        process, self.bytes = self.process, count
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(f"{count}\n")
        process.stdin.flush()
        assert int(process.stdout.readline()) == count


@contextmanager
def hog(beyond: int) -> Iterator[Hog]:
    process = subprocess.Popen(
        [sys.executable, str(HERE / "hog.py")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        yield Hog(process, beyond)
    finally:
        process.communicate()


def start(kernel: KernelProcess, folder: Path, seed: int) -> Soaking:
    log = folder / f"program-{seed}.log"
    with log.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, str(HERE / "soak_program.py"), f"ipc://{kernel.socket}", str(seed), str(MODELS)],
            stdout=out, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
    return Soaking(process, log)


def configured(folder: Path) -> tuple[int, str]:
    """Bytes that one of the models takes, as planned, and the configuration of a kernel with room for a few of them:
    on its device, and of the machine's memory with so much to spare that another program can take it away."""
    with running(folder, drivers="cpu0,models") as kernel, kernel.client() as client:
        client.await_driver("ready", "cpu0")
        options = {"dry_run": True, "max_context": 512}
        one = int(client.call("load_model", path="/models/m00", options=options)["plan"]["needed"])
        machine = on_device(client, "host")
    limit = int(one * (FIT + 0.5)) + RUNTIME
    reserve = int(machine["reserve"] + machine["free"]) - limit - SLACK
    if reserve < 1024 * MIB:
        pytest.skip("the machine has no memory that could be taken away without harm")
    memory = f"[memory]\nreserve_bytes = {reserve}\n"
    return one, f"{memory}[drivers.cpu0]\nmemory_bytes = {limit}\nrestarts = 1000\n"


def on_device(client: RawClient, device: str) -> Counter[str]:
    """Bytes of a device, by use."""
    found: Counter[str] = Counter()
    for name, metric in client.call("read_metrics", system=client.system, prefix="llmos_device_bytes").items():
        labels = dict(re.findall(r'(\w+)="([^"]*)"', name))
        if labels.get("device") == device:
            found[labels["what"]] += int(metric["value"])
    return found


def held(client: RawClient) -> dict[str, int]:
    """Bytes of the device that somebody holds, by use."""
    found = on_device(client, "cpu0")
    return {what: found[what] for what in HELD}


def write_models(folder: Path) -> None:
    """Models with the bundled one's tokenizer and random weights, 53 MB each."""
    shutil.copytree(TINY, folder / "m00", ignore=shutil.ignore_patterns("manifest.json", "*.safetensors"))
    config = transformers.AutoConfig.from_pretrained(TINY)
    config.update({"hidden_size": 512, "intermediate_size": 1536, "num_hidden_layers": 8, "num_attention_heads": 8})
    torch.manual_seed(SEED)
    transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(folder / "m00")
    for number in range(1, MODELS):
        shutil.copytree(folder / "m00", folder / f"m{number:02}")


def soak(folder: Path, seconds: float, every: float) -> None:
    """Load, kills and a hog for so long, one thing every so many seconds on average."""
    write_models(folder / "home/models")
    one, config = configured(folder)
    chance, kills = random.Random(SEED), Kills()
    with running(folder, config, drivers="cpu0,models") as kernel, kernel.client() as client, hog(2 * one) as outside:
        client.await_driver("ready", "cpu0")
        before = held(client)
        programs = [start(kernel, folder, seed) for seed in range(PROGRAMS)]
        while time.monotonic() - kills.began < seconds:
            wait(client, kills, outside, chance.uniform(0.5, 1.5) * every)
            outside.take(0)
            client.await_driver("ready", "cpu0")
            event = chance.choice(("host", "host", "program", "hog"))
            kills.note(event)
            if event == "host":
                kill(host(client))
                kills.hosts += 1
            elif event == "program":
                victim = chance.randrange(PROGRAMS)
                programs[victim].process.kill()
                programs[victim].killed = True
                kills.programs += 1
                programs.append(programs[victim])
                programs[victim] = start(kernel, folder, PROGRAMS + kills.programs)
            else:
                outside.press(on_device(client, "host")["free"])
                kills.hogs += 1
        outside.take(0)
        for program in programs:
            program.process.terminate()
            program.process.wait()
        kills.evictions = summed(client, 'llmos_evictions_total{reason="memory.excess"')
        judge(kills, programs)
        eventually(kernel, lambda: in_flight(client) == 0, lambda: f"requests are still in flight: {client.requests()}")
        unload_all(client)
        eventually(kernel, lambda: held(client) == before, lambda: f"held: {held(client)}, at first {before}")
        assert summed(client, "llmos_out_of_memory_total") == 0
        assert summed(client, "llmos_driver_restarts") == kills.hosts, "a host ended that was not killed here"


def wait(client: RawClient, kills: Kills, outside: Hog, seconds: float) -> None:
    """Let the load go on for so long, and see whether memory is short meanwhile; a hog keeps it so."""
    short, until = False, time.monotonic() + seconds
    while (now := time.monotonic()) < until or (outside.bytes and not short and now < until + LATEST_S):
        time.sleep(LOOK_S)
        free = on_device(client, "host")["free"]
        short = short or not free
        if outside.bytes and free:
            outside.press(free)
    if short:
        kills.shortages += 1
        kills.note("memory was short")


def summed(client: RawClient, prefix: str) -> int:
    """The sum of all metrics whose name and labels begin so."""
    metrics = client.call("read_metrics", system=client.system, prefix=prefix)
    return sum(int(metric["value"]) for metric in metrics.values())


def host(client: RawClient) -> int:
    pid = client.host("cpu0")
    assert pid > 0, "0 would be every process of this group"
    return pid


def in_flight(client: RawClient) -> int:
    """Requests without an answer; the one that asks is answered at once and does not count."""
    metric = client.call("read_metrics", system=client.system, prefix="llmos_requests_in_flight")
    return int(next(iter(metric.values()))["value"])


def unload_all(client: RawClient) -> None:
    for info in client.call("list_objects", system=client.system, kind="model"):
        client.call("unload_model", model=info["handle"], force=True)


def judge(kills: Kills, programs: list[Soaking]) -> None:
    """Each request ended once; but for those of programs that were killed, which have nobody to tell."""
    total: Counter[str] = Counter()
    for program in programs:
        asked, ended, how = program.ends()
        assert max(asked.values(), default=1) == 1 and max(ended.values(), default=1) == 1
        assert not ended.keys() - asked.keys()
        if not program.killed:
            assert ended.keys() == asked.keys(), program.log.read_text()[-2000:]
            assert program.log.read_text().endswith("done\n"), program.log.read_text()[-2000:]
        total += how
    print(f"{kills.hosts} hosts and {kills.programs} programs killed, {kills.hogs} hogs; {dict(total)}")
    print(f"memory was short {kills.shortages} times, {kills.evictions} models made room for others")
    assert kills.hosts and kills.programs and kills.hogs and kills.shortages
    assert not total.keys() - EXPECTED, _said(programs)
    assert total["ok"] > 2 * (kills.hosts + kills.programs)


def _said(programs: list[Soaking]) -> str:
    """What unexpected errors said."""
    lines = [line for program in programs for line in program.log.read_text().splitlines() if line.startswith("said ")]
    return "\n".join(line for line in lines if line.split()[1].rstrip(":") not in EXPECTED)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_minutes_of_kills_and_a_hog(folder: Path) -> None:
    soak(folder, 120.0, 6.0)
