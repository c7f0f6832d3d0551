"""The process of a peer: commands in, answers out, and what goes wrong is told."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from peers.peer import Answer, Job, Room
from peers.serve import CLASSES, obey

PERF = Path(__file__).resolve().parents[1]


class Fake:
    """A peer that answers with what it was given."""

    def load(self, folder: Path, room: Room) -> dict[str, Any]:
        return {"folder": folder.name, "threads": room.threads}

    def run(self, jobs: list[Job], last: int | None) -> list[Answer]:
        return [Answer(list(job.prompt), [job.at], 0.5) for job in jobs[: last or None]]

    def embed(self, texts: list[str]) -> int:
        return len(texts)


def test_commands() -> None:
    room = {"context": 1, "requests": 2, "tokens": 3, "threads": 4}
    assert obey(Fake(), {"do": "load", "folder": "/a/b", "room": room}) == {"folder": "b", "threads": 4}
    jobs = [{"prompt": [7], "new_tokens": 1, "at": 2.0, "after": 0, "adapter": ""}] * 2
    assert obey(Fake(), {"do": "run", "jobs": jobs, "last": 1}) == [
        {"tokens": [7], "times": [2.0], "submitted": 0.5}
    ]
    assert obey(Fake(), {"do": "embed", "texts": ["a", "b"]}) == 2


def test_every_peer_has_its_file() -> None:
    for place in CLASSES.values():
        module, _, name = place.partition(":")
        assert f"class {name}(" in (text := (PERF / "peers" / f"{module}.py").read_text()) or f"class {name}:" in text


def test_an_error_is_answered_and_ends_the_process() -> None:
    command = [sys.executable, "-P", "-m", "peers.serve", "no such peer"]
    done = subprocess.run(command, input="", capture_output=True, text=True, env={"PYTHONPATH": str(PERF)})
    assert json.loads(done.stdout) == {"error": "KeyError: 'no such peer'"} and done.returncode != 0
    assert "Traceback" in done.stderr
