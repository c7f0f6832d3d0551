"""A kernel and its gateway for a bench, in processes of their own."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ipc import start_kernel

from llmos.syscalls import calls
from llmos.syscalls.types import Handle
from llmos.userland.client import Client
from llmos.userland.gateway.core.keys import KeyStore, database

from .wire import Target

STREAMS = 2000


@dataclass
class Ours:
    """What a bench speaks to. `target` is the gateway, `client` the same kernel without HTTP."""

    client: Client
    model: Handle
    target: Target
    gateway: subprocess.Popen[bytes]


@contextlib.contextmanager
def ours(model: Path, name: str, drivers: str, config: str = "") -> Iterator[Ours]:
    """A kernel with these drivers and one model of that name loaded, and a gateway."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="llmos-bench-")))
        (folder / "home").mkdir()
        (folder / "home" / "config.toml").write_text(config)
        kernel, _ = start_kernel(folder, drivers)
        stack.callback(kernel.wait)
        stack.callback(kernel.terminate)
        client = stack.enter_context(Client(f"ipc://{folder}/run/kernel.sock"))
        system = client.welcome.system
        client.call(calls.MountFs(system=system, path="/bench", filesystem="models", source=str(model.parent)))
        handle = client.call(calls.LoadModel(path=f"/bench/{model.name}")).handle
        gateway, port = _gateway(folder)
        stack.callback(gateway.wait)
        stack.callback(gateway.terminate)
        keys = KeyStore(database(folder / "home"))
        key, _ = keys.create("bench", user="bench", scopes=("infer", "read"))
        keys.close()
        yield Ours(client, handle, Target("ours", port, name, key, {"ignore_eos": True}), gateway)


def _gateway(folder: Path) -> tuple[subprocess.Popen[bytes], int]:
    read, write = os.pipe()
    settings = {"connections": STREAMS, "per_key_connections": STREAMS, "log": "none"}
    argv = [sys.executable, "-P", "-m", "llmos.userland.gateway", "--http", "127.0.0.1:0"]
    argv += ["--settings", json.dumps(settings), "--home", str(folder / "home"), "--runtime", str(folder / "run")]
    argv += ["--parent", str(os.getpid()), "--ready-fd", str(write)]
    process = subprocess.Popen(argv, pass_fds=[write], stdout=subprocess.DEVNULL)
    os.close(write)
    with os.fdopen(read) as ready:
        line = ready.readline()
    if not line.startswith("READY "):
        process.wait()
        raise RuntimeError(f"the gateway ended with status {process.returncode}")
    return process, int(line.strip().rpartition(":")[2])
