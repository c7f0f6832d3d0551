"""What the operating system adds to the time to the first token, over calling the model directly in one process."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from ipc import start_kernel
from measure import REPEATS, Row, quantile, timed

from llmos.syscalls import calls
from llmos.syscalls.types import Sampling, Tokens
from llmos.userland.client import Client

HERE = Path(__file__).parent
MODEL = HERE.parents[1] / "drivers" / "filesystems" / "models" / "bundled" / "tiny"
PROMPT = list(range(20, 52))
COUNT = 100


def rows() -> list[Row]:
    """The bundled model, a prompt of 32 tokens, both sides with one thread."""
    ours, direct = [], []
    with tempfile.TemporaryDirectory(prefix="llmos-bench-") as name:
        folder = Path(name)
        (folder / "home").mkdir()
        (folder / "home" / "config.toml").write_text("[drivers.cpu0]\nthreads = 1\n")
        kernel, _ = start_kernel(folder, "cpu0,models")
        peer = subprocess.Popen(
            [sys.executable, str(HERE / "peers" / "direct.py"), str(MODEL), json.dumps(PROMPT), str(COUNT)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert peer.stdin is not None and peer.stdout is not None
        try:
            with Client(f"ipc://{folder}/run/kernel.sock") as client:
                model = client.call(calls.LoadModel(path="/models/tiny")).handle
                call = calls.InferStream(model=model, input=Tokens(ids=PROMPT), sampling=Sampling(max_tokens=1))
                timed(lambda: first(client, call), 10)
                for _ in range(REPEATS):
                    ours.append(sorted(timed(lambda: first(client, call), COUNT)))
                    peer.stdin.write("go\n")
                    peer.stdin.flush()
                    direct.append(sorted(json.loads(peer.stdout.readline())))
        finally:
            peer.kill()
            peer.communicate()
            kernel.terminate()
            kernel.wait()
    mine, base = quantile(ours, 0.5) * 1e3, quantile(direct, 0.5) * 1e3
    return [
        Row(
            "time to the first token, p50",
            mine,
            base,
            "ms",
            mine / base,
            "",
            None,
            "peer: in one process",
        ),
        Row("added by the operating system, p50", mine - base, None, "ms", None, "< 1 ms", mine - base < 1),
    ]


def first(client: Client, call: calls.InferStream) -> None:
    stream = client.stream(call)
    for _chunk in stream:
        break
    _ = stream.result
