"""What is not good enough by its recipe's condition is stored, and is not what its name means."""

from __future__ import annotations

from typing import Any

import pytest
from scripted import Inside, Program
from tuning_tasks import begin, ends, record, result

from llmos.syscalls.errors import BadArgument
from llmos.syscalls.types import Entry


@pytest.mark.parametrize(
    ("rule", "out", "path", "promoted"),
    [
        ("loss < 0.3", "/models/mine", "/mine", True), ("loss < 0.2", "/models/mine", "/mine-candidate", False),
        ("loss < 0.2", "/models/old@2", "/old@2", False), ("loss < 0.2", "/models/mine@2", "/mine-candidate", False),
        ("loss < 0.3", "/models/mine@2", "/mine@2", True),
        ("f1 > 0.2", "/models/mine", "/mine-candidate", False),
    ],
)  # fmt: skip
def test_a_condition_decides_where_the_result_goes(
    kernel: Inside, program: Program, model: int, rule: str, out: str, path: str, promoted: bool
) -> None:
    nothing = kernel.models.answers["stat"]
    kernel.models.answers["stat"] = lambda body: (
        Entry(path="/old", kind="folder") if body["path"] == "/old" else nothing
    )
    task = begin(program, model, out, promote_if=rule)
    ends(kernel, task)
    ended = result(program, task)
    value = ended["value"]
    assert (value["promoted"], value["path"]) == (promoted, f"/models{path}".partition("@")[0])
    assert kernel.models.last("stage")["path"] == path
    commit = kernel.models.last("commit")
    assert commit["manifest"].get("candidate", False) is not promoted
    assert commit["expected_version"] == ("" if promoted and "@" not in out else None)
    assert record(kernel, task).promoted is promoted and record(kernel, task).out.inner == path
    (reason,) = [each for each in kernel.kernel.decisions.of(task["id"]) if each.code.startswith("tune.")]
    assert reason.code == ("tune.promoted" if promoted else "tune.candidate") and reason.rule == f"promote_if {rule}"
    if "loss" in rule:
        assert reason.numbers == {"loss": 0.25}
    said = ended["reasons"][0]["text"]
    assert said.endswith(f"; not promoted, since {rule} does not hold") is not promoted


def test_what_is_no_condition_is_refused_before_anything_is_done(
    kernel: Inside, program: Program, model: int
) -> None:
    recipe: dict[str, Any] = {"method": "lora", "promote_if": "loss <"}
    error = program.error("tune", model=model, recipe=recipe, data="/home/d.jsonl", out="/models/mine")
    assert isinstance(error, BadArgument) and error.name == "promote_if"
    assert "tune" not in kernel.null.names()
