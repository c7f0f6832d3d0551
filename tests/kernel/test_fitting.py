"""Searching for what fits on a device: by the bytes where they are enough, else by the planner."""

from __future__ import annotations

from typing import Any

import pytest
from scripted import MEMORY, Inside, Program, loaded, rows

from llmos.kernel import fitting
from llmos.kernel.supervisor import DriverState
from llmos.syscalls.driver import PlanRows
from llmos.syscalls.errors import BadArgument, BadModel, BadState

SMALL, MIDDLE, LARGE = 1 << 10, MEMORY // 2, 2 * MEMORY


def hits(**sizes: int) -> list[dict[str, Any]]:
    common = {"score": 1.0, "reason": "r"}
    return [{"path": f"/{name}", "fields": {"bytes": size}, **common} for name, size in sizes.items()]


def found(program: Program, fits: Any = "null0", limit: int = 8, **filters: Any) -> dict[str, str]:
    """The reasons of the hits by path."""
    body = {"filters": {"fits": fits, **filters}, "limit": limit}
    return {hit["path"]: hit["reason"] for hit in program.call("search_fs", path="/models", query="x", **body)}


def test_what_clearly_fits_or_not_needs_no_plan(kernel: Inside, program: Program) -> None:
    kernel.models.answers["search"] = hits(small=SMALL, large=LARGE)
    assert found(program, task="t") == {"/models/small": "r; fits on null0: its files are 1.0 KiB, 1.0 MiB free"}
    assert kernel.null.names() == []
    asked = kernel.models.last("search")
    assert asked["filters"] == {"task": "t"} and asked["limit"] == 32


def test_what_is_in_between_is_planned(kernel: Inside, program: Program) -> None:
    kernel.models.answers["search"] = hits(middle=MIDDLE)
    assert found(program) == {"/models/middle": "r; fits on null0: needs 1.0 KiB, 1.0 MiB free"}
    assert kernel.models.names()[-2:] == ["locate", "release"]
    kernel.null.answers["plan"] = PlanRows(rows=rows(LARGE))
    assert found(program) == {}
    kernel.null.answers["plan"] = BadModel("damaged")
    assert found(program) == {} and kernel.models.names()[-1] == "release"


def test_idle_models_would_give_way(kernel: Inside, program: Program) -> None:
    kernel.null.answers.update(plan=PlanRows(rows=rows(MEMORY)), load=loaded(MEMORY))
    model = program.load("tiny")
    kernel.models.answers["search"] = hits(middle=MIDDLE)
    assert found(program)["/models/middle"].endswith("0 B free and 1.0 MiB that idle models would give")
    program.control(model, "pin")
    assert found(program) == {}


def test_after_so_many_plans_the_files_are_judged(
    kernel: Inside, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fitting, "PLANS", 1)
    kernel.models.answers["search"] = hits(a=MIDDLE, b=MIDDLE, c=MIDDLE + 1)
    reasons = found(program)
    assert [*reasons] == ["/models/a", "/models/b"] and "its files are 512.0 KiB" in reasons["/models/b"]
    assert kernel.null.names() == ["plan"]


def test_only_so_many_are_answered_as_are_wanted(kernel: Inside, program: Program) -> None:
    kernel.models.answers["search"] = hits(a=SMALL, b=SMALL, c=SMALL)
    assert [*found(program, limit=2)] == ["/models/a", "/models/b"]


def test_any_device_is_enough(kernel: Inside, program: Program) -> None:
    kernel.models.answers["search"] = [*hits(a=SMALL), {"path": "/b", "score": 1.0, "fields": {}}]
    assert [*found(program, fits="any")] == ["/models/a"]
    kernel.null.dies(DriverState.STOPPED)
    assert found(program, fits="any") == {}
    error = program.error("search_fs", path="/models", query="x", filters={"fits": "null0"})
    assert isinstance(error, BadState)


def test_a_device_that_starts_is_waited_for(kernel: Inside, program: Program) -> None:
    kernel.models.answers["search"] = hits(a=SMALL)
    kernel.null.dies()
    number = program.send("search_fs", path="/models", query="x", filters={"fits": "null0"})
    assert not program.done(number)
    kernel.null.starts()
    assert [hit["path"] for hit in program.wait(number).value] == ["/models/a"]


def test_a_device_that_is_not_there_is_said(program: Program) -> None:
    for fits in ("cuda9", 5):
        error = program.error("search_fs", path="/models", query="x", filters={"fits": fits})
        assert isinstance(error, BadArgument) and error.want == "any, null0"
