"""The checking process, driven by hand: one line for each thing that happens."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from llmos.drivers.conformance.child import work
from llmos.drivers.conformance.device_checks import DEVICE_CHECKS


def lines(order: dict[str, Any]) -> list[dict[str, Any]]:
    """What it says, until its end of the pipe is closed."""
    receive, send = os.pipe()
    with os.fdopen(receive) as reports:
        work({"config": {}, "source": "", "done": [], "report": send, **order})
        return [json.loads(line) for line in reports]


@pytest.fixture
def model(folder: Path) -> Path:
    (folder / "w").write_bytes(b"x" * 10)
    (folder / "manifest.json").write_text('{"version": "v5", "context": 300}')
    return folder


def test_it_says_what_it_will_do_and_what_came_of_it(model: Path) -> None:
    first, *rest = lines({"name": "null0", "model": str(model)})
    assert first["kind"] == "device" and len(first["checks"]) == len(DEVICE_CHECKS)
    assert [line["begin"] for line in rest[::2]] == [line["check"] for line in rest[1::2]] == first["checks"]
    verdicts = {line["check"]: line["verdict"] for line in rest[1::2]}
    assert set(verdicts.values()) == {"holds", "not offered"}
    assert [check.partition(":")[0] for check, verdict in verdicts.items() if verdict == "not offered"] == ["inspect"]


def test_it_leaves_out_what_is_done(model: Path) -> None:
    first, *_ = lines({"name": "null0", "model": str(model)})
    done = first["checks"][:-1]
    _, begin, end = lines({"name": "null0", "model": str(model), "done": done})
    assert begin == {"begin": first["checks"][-1]} and end["verdict"] == "holds"


def test_it_ends_after_a_failure(model: Path) -> None:
    manifest = {"null": {"faults": ["oom"]}}
    (model / "manifest.json").write_text(json.dumps(manifest))
    *_, last = lines({"name": "null0", "model": str(model)})
    assert (last["verdict"], last["check"].startswith("load:")) == ("FAILS", True)
    assert last["text"].startswith("it raised NoDeviceMemory")
