"""Importing a model beside `cp` of the same files: both from a cold source, both until the bytes are on the disk."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from measure import Row, interleaved, quantile

from llmos.userland import boot
from llmos.userland.objects import System

AIM = 1.5
REPEATS = 3
FOLDER = Path(__file__).resolve().parents[2] / "build" / "bench"
CONFIG = {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}


def rows(megabytes: int = 1024) -> list[Row]:
    """Seconds to import a model of so many megabytes, and to copy it."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=FOLDER, prefix="import-") as name:
        folder = Path(name)
        source = write(folder / "source", megabytes << 20)
        with boot(drivers=["models"], home=str(folder / "home")) as system:
            path = system.namespace_path(source)
            cases = {
                "cp": lambda: copied(source, folder / "copy", wait=True),
                "cp without sync": lambda: copied(source, folder / "copy", wait=False),
                "import": lambda: imported(system, path, source),
            }
            samples = interleaved(cases, REPEATS)
    ours, peer, lazy = (quantile(samples[name], 0.5) for name in ("import", "cp", "cp without sync"))
    ratio = ours / peer
    note = f"cp -r and sync -f; median of {REPEATS}, cold source; cp without sync {lazy:.2f} s"
    return [Row(f"import of {megabytes} MiB", ours, peer, "s", ratio, f"{AIM} of cp", ratio <= AIM, note)]


def write(folder: Path, size: int) -> Path:
    """A model of one file of random numbers."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    header = json.dumps({"w": {"dtype": "BF16", "shape": [size // 2], "data_offsets": [0, size // 2 * 2]}}).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        for _ in range(0, size, 1 << 20):
            file.write(os.urandom(1 << 20))
        file.flush()
        os.fsync(file.fileno())
    return folder


def cool(folder: Path) -> None:
    """Let the system forget what it keeps of the files in memory."""
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


@contextmanager
def clocked(samples: list[float]) -> Iterator[None]:
    began = time.perf_counter()
    yield
    samples.append(time.perf_counter() - began)


def copied(source: Path, target: Path, *, wait: bool) -> Sequence[float]:
    """One `cp`, and what is left of it removed."""
    samples: list[float] = []
    cool(source)
    with clocked(samples):
        subprocess.run(["cp", "-r", str(source), str(target)], check=True)
        if wait:
            subprocess.run(["sync", "-f", str(target)], check=True)
    subprocess.run(["sync", "-f", str(target)], check=True)
    shutil.rmtree(target)
    return samples


def imported(system: System, path: str, source: Path) -> Sequence[float]:
    """One import, and the model removed."""
    samples: list[float] = []
    cool(source)
    with clocked(samples):
        result = system.transform([path], "/models/bench", {"kind": "import"}).wait()
    assert result.state == "done", result
    system.remove("/models/bench")
    gc = next(info for info in system.mounts() if info.name == "/models")
    assert gc.handle is not None
    system.control(gc.handle, "gc")
    return samples


if __name__ == "__main__":
    for row in rows(int(os.environ.get("MEGABYTES", "1024"))):
        print(row)
