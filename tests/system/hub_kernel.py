"""A kernel that takes a made-up hub on this machine for the hub."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fake_hub import FakeHub

from .kernel_process import ALL, KernelProcess, running
from .model_folder import CONFIG, safetensors

FILES = {
    "config.json": json.dumps(CONFIG).encode(), "model.safetensors": safetensors(),
    "tokenizer.json": ("[" + "1," * 500_000 + "1]").encode(),
}  # fmt: skip
"""A small model with one large file."""
HALF = 300_000
"""Bytes of the large file, about in its middle."""


@contextmanager
def kernel_with(hub: FakeHub) -> Iterator[KernelProcess]:
    """A running kernel whose drivers are ready."""
    with tempfile.TemporaryDirectory(prefix="t") as path:
        environ = {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "HF_HOME": f"{path}/hub"}
        with running(Path(path), drivers=ALL, environ=environ) as kernel:
            with kernel.client() as client:
                for driver in ("null0", "models", "files"):
                    client.await_driver("ready", driver)
            yield kernel
