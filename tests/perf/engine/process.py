"""A peer in a process of its own, with the Python of its own environment."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from peers.peer import Answer, Job, Room

from llmos.kernel.supervisor import SPIN_COUNT

PERF = Path(__file__).resolve().parents[1]
LIMIT_S = 3600.0
GRACE_S = 15.0


@dataclass(frozen=True)
class Kind:
    """A peer: the environment it needs (below build/peers; "" is the project's own), and what it is called.

    `padded`: it has no continuous batching. `bits`: the widths of weights that it knows; of others it is left out, but
    for a baseline, which stays in 16 bits.
    """

    name: str
    environment: str = ""
    padded: bool = False
    bits: tuple[int, ...] = (16,)
    settings: tuple[tuple[str, str], ...] = ()


EVERY = (16, 8, 4)
AS_A_HOST = (("GOMP_SPINCOUNT", SPIN_COUNT),)
"""As the kernel starts the host of a device."""

KINDS = {
    kind.name: kind
    for kind in (
        Kind("ours", bits=EVERY, settings=AS_A_HOST),
        Kind("ours-kernel", bits=EVERY),
        Kind("generate", padded=True),
        Kind("generate-static", padded=True),
        Kind("generate-batch"),
        Kind("llama.cpp", "llama", bits=EVERY),
        Kind("openvino", "openvino", padded=True, bits=EVERY),
        Kind("vllm", "vllm"),
    )
}
OURS = ("ours", "ours-kernel")
BASELINE = "generate"
"""Measured beside weights of any width."""


def known(name: str, bits: int) -> bool:
    """Whether a peer takes part with weights of so many bits."""
    return name == BASELINE or bits in KINDS[name].bits


class PeerFailed(Exception):
    """A peer's process ended, or answered with an error.

    Attributes:
        why: the same without what the process said, which may hold paths of this machine.
    """

    def __init__(self, why: str, said: str = "") -> None:
        super().__init__(f"{why}; it said last: {said}" if said else why)
        self.why = why


def python(environment: str) -> Path:
    """The interpreter of an environment."""
    return PERF.parents[1] / "build" / "peers" / environment / "bin" / "python" if environment else Path(sys.executable)


class PeerProcess:
    """Runs `peers.serve`; computes only while a command is under way."""

    def __init__(self, name: str, environment: str = "", threads: int = 2, settings: Mapping[str, str] = {}) -> None:
        self.name = name
        interpreter = python(environment)
        if not interpreter.exists():
            raise PeerFailed(f"{name} is not installed: make peers")
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed with the process
        self._process = subprocess.Popen(
            [interpreter, "-P", "-u", "-m", "peers.serve", name], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=self._log, text=True,
            env={
                **os.environ, "PYTHONPATH": str(PERF), "OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1",
                "TOKENIZERS_PARALLELISM": "false", **settings,
            },
        )  # fmt: skip
        self.facts: dict[str, Any] = {}
        try:
            self.continuous = bool(self._answer()["continuous"])
        except PeerFailed:
            self.close()
            raise

    def load(self, folder: Path, room: Room) -> None:
        self.facts = self.ask("load", folder=str(folder), room=asdict(room))

    def run(self, jobs: Sequence[Job], last: int | None = None) -> list[Answer]:
        return [Answer(**answer) for answer in self.ask("run", jobs=[asdict(job) for job in jobs], last=last)]

    def ask(self, command: str, **given: Any) -> Any:
        """Have a command carried out. Raises PeerFailed."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"do": command, **given}) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise self._failure("has ended") from error
        return self._answer()

    def close(self) -> None:
        """End the process; kill it when it does not end by itself."""
        assert self._process.stdin is not None and self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._log.close()

    def _answer(self) -> Any:
        output = self._process.stdout
        assert output is not None
        if not select.select([output], [], [], LIMIT_S)[0]:
            self._process.kill()
            raise self._failure(f"did not answer within {LIMIT_S:.0f} s")
        line = output.readline()
        if not line:
            raise self._failure("has ended")
        answer = json.loads(line)
        if "error" in answer:
            raise self._failure(f"answered {answer['error']}")
        return answer["value"]

    def _failure(self, what: str) -> PeerFailed:
        self._log.flush()
        self._log.seek(0)
        return PeerFailed(f"{self.name} {what}", self._log.read()[-1500:])


@contextlib.contextmanager
def started(kind: Kind, threads: int) -> Iterator[PeerProcess]:
    """A peer's process for the length of a block."""
    process = PeerProcess(kind.name, kind.environment, threads, dict(kind.settings))
    try:
        yield process
    finally:
        process.close()
