"""What the operating system adds to the time to the first token, over calling the model directly in one process."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ipc import start_kernel
from measure import REPEATS, Row, quantile, timed

from llmos.syscalls import calls
from llmos.syscalls.types import Sampling, Tokens
from llmos.userland.client import Client

Peer = subprocess.Popen[str]
HERE = Path(__file__).parent
MODEL = HERE.parents[1] / "drivers" / "filesystems" / "models" / "bundled" / "tiny"
PROMPT = list(range(20, 51))
COUNT = 100
PEERS = {"transformers": "the model called directly", "engine": "our own engine in one process"}


def rows() -> list[Row]:
    """The bundled model, prompts of 32 tokens, all sides with one thread."""
    ours: list[list[float]] = []
    direct: dict[str, list[list[float]]] = {kind: [] for kind in PEERS}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        client = stack.enter_context(served(folder))
        peers = {kind: stack.enter_context(peer(kind)) for kind in PEERS}
        model = client.call(calls.LoadModel(path="/models/tiny")).handle
        sampling = Sampling(max_tokens=1, temperature=0.0)
        numbers = itertools.count()

        def once() -> None:
            given = Tokens(ids=[next(numbers), *PROMPT])
            first(client, calls.InferStream(model=model, input=given, sampling=sampling))

        timed(once, 10)
        for _ in range(REPEATS):
            ours.append(sorted(timed(once, COUNT)))
            for kind, process in peers.items():
                direct[kind].append(sorted(measured(process)))
    mine = quantile(ours, 0.5) * 1e3
    found = []
    for kind, what in PEERS.items():
        base = quantile(direct[kind], 0.5) * 1e3
        aim, met = ("< 1 ms", mine - base < 1) if kind == "transformers" else ("", None)
        found.append(Row("time to the first token, p50", mine, base, "ms", mine / base, "", None, f"peer: {what}"))
        found.append(Row(f"added to {what}, p50", mine - base, None, "ms", None, aim, met))
    return found


@contextmanager
def served(folder: Path) -> Iterator[Client]:
    """A client of a kernel with one thread for the model."""
    (folder / "home").mkdir()
    (folder / "home" / "config.toml").write_text("[drivers.cpu0]\nthreads = 1\n")
    kernel, _ = start_kernel(folder, "cpu0,models")
    try:
        with Client(f"ipc://{folder}/run/kernel.sock") as client:
            yield client
    finally:
        kernel.terminate()
        kernel.wait()


@contextmanager
def peer(kind: str) -> Iterator[Peer]:
    argv = [sys.executable, "-m", "peers.direct", kind, str(MODEL), json.dumps(PROMPT), str(COUNT)]
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=HERE)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def measured(process: Peer) -> list[float]:
    """One repeat of a peer."""
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write("go\n")
    process.stdin.flush()
    seconds: list[float] = json.loads(process.stdout.readline())
    return seconds


def first(client: Client, call: calls.InferStream) -> None:
    stream = client.stream(call)
    for _chunk in stream:
        break
    _ = stream.result
