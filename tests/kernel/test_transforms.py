"""Jobs that bring and send: what they are told, what they say, how they end. Real processes in the worker's place."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from scripted import Inside, Program, inside

from llmos.kernel import tasks, transforms
from llmos.kernel.session import Peer
from llmos.syscalls.driver import LocalFile, Located
from llmos.syscalls.errors import (
    BadArgument, BadModel, Denied, DriverFailed, LlmosError, NotFound, NotSupported, OverQuota, ReadOnly,
)  # fmt: skip

READ = "import json, os, sys\njob = json.load(os.fdopen(int(sys.argv[-1])))\ndef say(**said): print(json.dumps(said))\n"
Worker = Callable[[str], None]


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Worker:
    """What the worker does, as Python that has `job` and `say`."""

    def does(script: str) -> None:
        monkeypatch.setattr(transforms, "WORKER", ("-c", READ + script))

    return does


def begin(program: Program, source: str = "/models/tiny", out: str = "/models/new", **recipe: Any) -> dict[str, Any]:
    task: dict[str, Any] = program.call(
        "transform_model", sources=[source], out=out, recipe={"kind": "import", **recipe}
    )
    return task


def refused(program: Program, sources: list[str], out: str = "/models/new", kind: str = "import") -> LlmosError:
    return program.error("transform_model", sources=sources, out=out, recipe={"kind": kind})


def ended(program: Program, task: dict[str, Any]) -> dict[str, Any]:
    value: dict[str, Any] = program.call("wait_task", task=task["handle"])
    return value


def test_the_worker_is_told_what_to_do_and_where(live: Inside, worker: Worker) -> None:
    worker("say(value={'version': '1', 'files': 2, 'bytes': 3, 'job': job, 'home': os.environ['LLMOS_HOME']})")
    program = live.program()
    task = begin(program, options={"replace": True})
    assert task["kind"] == "import" and task["state"] == "running"
    result = ended(program, task)
    value, job = result["value"], result["value"]["job"]
    assert (result["state"], result["exit"], value["path"]) == ("done", 0, "/models/new")
    assert (job["driver"], job["path"], job["recipe"]["options"]) == ("models", "/new", {"replace": True})
    assert job["source"].startswith(str(live.config.paths.home)) and "target" not in job
    assert [source["path"] for source in job["sources"]] == ["/tiny"]
    assert value["home"] == str(live.config.paths.home)
    assert result["reasons"][0]["text"] == "/models/new@1: 2 files, 3 bytes"
    assert live.models.names() == ["locate", "release"]


def test_progress_is_told_as_events_and_kept(live: Inside, worker: Worker) -> None:
    worker(
        "print('a library speaks'); print()\nsay(progress={'done': 1, 'total': 4, 'unit': 'bytes', 'stage': 'copy'})\n"
        "say(value={'version': '1'})"
    )
    program = live.program()
    with program.watching("task") as events:
        task = begin(program)
        ended(program, task)
        program.drain()
        fields = [event["fields"] for event in events.chunks]
    assert fields[0] == {"state": "running", "work": "import", "name": "import /models/new"}
    assert fields[1] == {"state": "running", "done": 1, "total": 4, "unit": "bytes", "stage": "copy"}
    assert fields[2] == {"state": "done", "exit": 0}
    assert program.call("stat_object", handle=task["handle"])["fields"]["progress"]["done"] == 4
    records = program.call("read_journal", system=program.system, about=task["id"], level="debug")
    assert "a library speaks" in [record["text"] for record in records]


def test_what_is_made_of_several_is_told_by_their_names_and_what_was_measured(live: Inside, worker: Worker) -> None:
    worker("say(value={'version': '2', 'files': 2, 'bytes': 3, 'job': job, "
           "'metrics': {'bits_per_weight': 4.5, 'method': 'ties', 'whole': True}})")  # fmt: skip
    program = live.program()
    recipe = {"kind": "merge", "method": "ties"}
    sources = ["/models/tiny@1", "/models/other/"]
    task = program.call("transform_model", sources=sources, out="/models/new", recipe=recipe)
    result = ended(program, task)
    assert result["value"]["job"]["names"] == ["/models/tiny@1", "/models/other"]
    assert [source["path"] for source in result["value"]["job"]["sources"]] == ["/tiny", "/other"]
    assert result["reasons"][0]["text"] == "/models/new@2: 2 files, 3 bytes, bits per weight 4.5"
    assert live.models.names() == ["locate", "locate", "release", "release"]


def test_an_error_of_the_worker_names_the_path_that_the_program_uses(live: Inside, worker: Worker) -> None:
    error = BadModel("/new: weights.bin is a pickle", file="weights.bin", why="is a pickle").to_wire()
    worker(f"say(error={error!r}); sys.exit(1)")
    program = live.program()
    result = ended(program, begin(program))
    assert (result["state"], result["exit"]) == ("failed", 1)
    assert result["value"]["error"]["message"] == "/models/new: weights.bin is a pickle"
    assert result["value"]["error"]["fields"]["file"] == "weights.bin"
    assert result["reasons"][0]["text"] == "/models/new: weights.bin is a pickle"


def test_a_worker_that_dies_costs_one_job(live: Inside, worker: Worker) -> None:
    worker("print('last words', flush=True); os.kill(os.getpid(), 9)")
    program = live.program()
    result = ended(program, begin(program))
    error = result["value"]["error"]
    assert (result["state"], result["exit"], error["name"]) == ("failed", -signal.SIGKILL, DriverFailed.__name__)
    assert error["fields"]["cause"] == "killed by SIGKILL" and "start the job again" in error["message"]
    assert live.models.names() == ["locate", "release"]


def test_a_job_is_paused_resumed_and_cancelled(live: Inside, worker: Worker) -> None:
    worker("import time\nsay(progress={'done': 0}); sys.stdout.flush(); time.sleep(600)")
    program = live.program()
    task = begin(program)
    assert program.control(task["handle"], "pause")["state"] == "paused"
    assert program.control(task["handle"], "resume")["state"] == "running"
    assert program.call("cancel_task", task=task["handle"])["state"] == "cancelled"
    result = ended(program, task)
    assert (result["state"], result["value"]) == ("cancelled", {})
    assert result["reasons"][0]["text"] == "cancelled; nothing was stored"


def test_a_job_that_was_done_when_it_was_cancelled_is_done(live: Inside, worker: Worker) -> None:
    worker("import signal, time\nsignal.signal(15, lambda *_: (say(value={'version': '1'}), os._exit(0)) and None)\n"
           "sys.stdout.reconfigure(line_buffering=True); say(progress={'done': 1}); time.sleep(600)")  # fmt: skip
    program = live.program()
    task = begin(program)
    assert live.loop is not None
    live.loop.until(lambda: live.kernel.objects[task["id"]].fields()["progress"])
    assert program.call("cancel_task", task=task["handle"])["state"] == "done"


def test_urls_go_to_the_worker_as_they_are(live: Inside, worker: Worker) -> None:
    worker("say(value={'version': '1', 'job': job})")
    program = live.program()
    job = ended(program, begin(program, "hf:acme/fox@main"))["value"]["job"]
    assert job["sources"] == ["hf:acme/fox@main"]
    pushed = ended(program, begin(program, "/models/tiny@1", "http://other:7411", kind="push"))["value"]
    assert (pushed["job"]["target"], pushed["job"]["path"], pushed["path"]) == (
        "http://other:7411", "/tiny@1", "/models/tiny"
    )  # fmt: skip
    assert "sources" not in pushed["job"] and live.models.names() == []


def test_what_cannot_be_is_refused_before_anything_starts(live: Inside) -> None:
    program = live.program()
    unknown = refused(program, ["/models/tiny"], kind="quantise")
    assert isinstance(unknown, NotSupported) and "did you mean 'quantize'?" in unknown.text
    assert isinstance(refused(program, []), BadArgument)
    assert isinstance(refused(program, ["hf:a/b"], "http://other"), BadArgument)
    assert isinstance(refused(program, ["/models/tiny"], "http://other", "quantize"), BadArgument)
    alone = refused(program, ["/models/tiny"], kind="merge")
    assert isinstance(alone, BadArgument) and alone.want == "2 to 64"
    foreign = refused(program, ["/models/tiny", "hf:a/b"], kind="merge")
    assert isinstance(foreign, BadArgument) and (foreign.name, foreign.got) == ("sources", "hf:a/b")
    assert isinstance(refused(program, ["hf:a/b"], "/proc/x"), ReadOnly)
    assert isinstance(refused(program, ["/proc/x"], "http://other", "push"), NotSupported)
    assert isinstance(refused(program, ["/nowhere/x"]), NotFound)
    live.models.answers["locate"] = BadModel("/tiny: no", file="f", why="no")
    assert isinstance(refused(program, ["/models/tiny"]), BadModel)
    assert program.names("/proc/tasks") == []


def test_another_user_names_no_urls(folder: Path) -> None:
    settings = '[policy.default]\nmounts = {"/models" = "rw"}\n[policy.default.handles]\nsystem = "all"\n'
    with inside(folder, settings, drivers="models") as kernel:
        stranger = kernel.program(Peer(12345, 12345, os.getpid()))
        error = refused(stranger, ["hf:acme/fox"])
        assert isinstance(error, Denied) and error.missing == "uid"


def test_jobs_of_one_user_are_counted(live: Inside, worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    worker("import time; time.sleep(600)")
    monkeypatch.setattr(tasks, "JOBS", 1)
    program = live.program()
    task = begin(program)
    error = refused(program, ["/models/tiny"])
    assert isinstance(error, OverQuota) and error.what == "jobs"
    program.call("cancel_task", task=task["handle"])
    assert live.models.names() == ["locate", "release"]


def test_a_worker_that_cannot_be_started_is_an_error(live: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    program = live.program()
    assert isinstance(refused(program, ["/models/tiny"]), OverQuota)
    assert program.names("/proc/tasks") == [] and live.models.names() == ["locate", "release"]


def test_the_real_worker_brings_a_folder(live: Inside, folder: Path) -> None:
    from system.model_folder import write_model

    live.config.paths.models.mkdir(parents=True)
    made = write_model(folder / "mine")
    files = [LocalFile(name=p.name, path=str(p), bytes=p.stat().st_size) for p in made.iterdir()]
    live.models.answers["locate"] = Located(path="/mine", version="local", files=files, token="t")
    program = live.program()
    result = ended(program, begin(program))
    assert result["state"] == "done", result
    stored = live.config.paths.models / "new/versions/1"
    assert json.loads((stored / "manifest.json").read_bytes())["origin"] == "folder mine"
    assert result["value"]["files"] == 2
