"""The worker's process: what it says, how it ends, that it never outlives its job."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from llmos.drivers import worker
from llmos.drivers.worker import Job, Teller, shortened
from llmos.syscalls.errors import BadModel, NoDeviceMemory
from system.model_folder import write_model

COMMAND = (sys.executable, "-P", "-m", "llmos.drivers.worker")


def begun(job: Mapping[str, Any], stdout: int = subprocess.PIPE) -> subprocess.Popen[bytes]:
    fd = os.memfd_create("job")
    os.write(fd, json.dumps(job).encode())
    os.lseek(fd, 0, os.SEEK_SET)
    environ = {**os.environ, "LLMOS_PARENT_PID": str(os.getpid())}
    process = subprocess.Popen([*COMMAND, "--job-fd", str(fd)], stdout=stdout, env=environ, pass_fds=(fd,))
    os.close(fd)
    return process


def job_of(tmp_path: Path, **more: Any) -> dict[str, Any]:
    made = write_model(tmp_path / "mine")
    (tmp_path / "models").mkdir(exist_ok=True)
    files = [{"name": p.name, "path": str(p), "bytes": p.stat().st_size} for p in made.iterdir()]
    located = {"path": "/mine", "version": "local", "files": files}
    return {
        "driver": "models", "source": str(tmp_path / "models"), "config": {"cache": str(tmp_path / "cache")},
        "path": "/new", "sources": [located], "recipe": {"kind": "import", "options": {}}, **more,
    }  # fmt: skip


def test_it_brings_a_model_and_says_so(tmp_path: Path) -> None:
    with begun(job_of(tmp_path)) as process:
        said = [json.loads(line) for line in process.communicate()[0].splitlines() if line]
    assert process.returncode == 0 and said[0]["progress"]["stage"] == "copy"
    assert (said[-1]["value"]["version"], said[-1]["value"]["files"]) == ("1", 2)
    assert (tmp_path / "models/new/versions/1/manifest.json").exists()


def test_an_error_is_its_last_line(tmp_path: Path) -> None:
    with begun(job_of(tmp_path, sources=["hf:nothing"], driver="files", config={})) as process:
        (line,) = [line for line in process.communicate()[0].splitlines() if line]
    assert process.returncode == 1 and json.loads(line)["error"]["name"] == "NotSupported"


def test_an_error_names_a_source_as_the_program_does(tmp_path: Path) -> None:
    recipe = {"kind": "prune", "sparsity": 0.5, "options": {}}
    with begun(job_of(tmp_path, names=["/models/mine"], recipe=recipe)) as process:
        *_, line = [line for line in process.communicate()[0].splitlines() if line]
    error = json.loads(line)["error"]
    assert error["name"] == "NotSupported" and error["message"].startswith("/models/mine is not pruned")


def test_asked_to_end_it_leaves_nothing(tmp_path: Path) -> None:
    job = job_of(tmp_path)
    fifo = tmp_path / "slow"
    os.mkfifo(fifo)
    waiting = {"name": "z.safetensors", "path": str(fifo), "bytes": 0}
    job["sources"][0]["files"].append(waiting)
    holding = os.open(fifo, os.O_RDWR)
    os.mkfifo(tmp_path / "out")
    try:
        with begun(job) as process:
            assert process.stdout is not None
            for line in iter(process.stdout.readline, b""):
                if line.strip():
                    break
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) in (worker.EXIT_ASKED, 1)
    finally:
        os.close(holding)
    assert not (tmp_path / "models/new").exists()
    assert list((tmp_path / "models/.llmos/scratch").iterdir()) == []


def test_progress_is_told_five_times_a_second_at_most() -> None:
    now, said = [0.0], []
    tell = Teller(said.append, lambda: now[0])
    for tick in range(100):
        now[0] = tick / 50
        tell(tick, 100, stage="x" * 300)
    assert 9 <= len(said) <= 11 and said[0]["progress"]["done"] == 0
    assert len(said[0]["progress"]["stage"]) == 100
    said.clear()
    tell.flush()
    now[0] += 1
    tell.flush()
    tell.flush()
    assert [told["progress"]["done"] for told in said] == [99]


def test_long_errors_fit_a_line() -> None:
    assert shortened(BadModel("short", file="f", why="w"))["message"] == "short"
    long = shortened(BadModel("m" * 3000, file="f" * 900, why="w" * 900, reasons=[{"text": "r" * 900}]))
    assert len(json.dumps(long)) < worker.LONGEST and long["fields"]["file"] == "f" * 100
    many = shortened(NoDeviceMemory("x" * 3000, needed=5, by_whom=["a" * 500] * 20))
    assert many["fields"]["needed"] == 5 and "by_whom" not in many["fields"]


def test_a_job_with_unknown_words_is_refused() -> None:
    import msgspec

    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(b'{"driver": "m", "source": "/", "path": "/", "more": 1}', type=Job)
