"""What the gateway remembers: figures and curves, bounded, and each viewer's part of them."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from gateway_server import GatewayServer
from hypothesis import example, given
from hypothesis import strategies as st

from llmos.syscalls.types import Event
from llmos.userland.gateway.native.past import Curve, Past, Recorder, figures_of, point_of


def point(step: int, task: str = "t") -> dict[str, Any]:
    return {"task": task, "step": step, "values": {"loss": 1.0}}


def test_a_point_of_a_curve_is_a_task_event_of_a_step() -> None:
    told = {"state": "running", "done": 5, "total": 9, "fraction": 0.55, "stage": "train", "loss": 1.5}
    assert point_of(Event(kind="task", about="t-1", fields=told)) == {
        "task": "t-1", "step": 5, "values": {"loss": 1.5},
    }  # fmt: skip
    assert point_of(Event(kind="task", about="t-1", fields={**told, "stage": "checkpoint"})) is None
    assert point_of(Event(kind="task", about="t-1", fields={"state": "running"})) is None
    assert point_of(Event(kind="model", about="m", fields=told)) is None


@given(st.integers(0, 300), st.integers(2, 20))
@example(12, 11)
def test_a_curve_keeps_its_first_and_newest_point_and_is_even(count: int, most: int) -> None:
    curve = Curve(most)
    for step in range(count):
        curve.add(point(step))
    steps = [each["step"] for each in curve.points()]
    assert len(steps) <= most + 1 and steps[-1:] == list(range(count))[-1:]
    assert steps[: len(curve.kept)] == list(range(0, count, curve.stride))[: len(curve.kept)]


def test_figures_are_series_with_holes_and_only_of_models_that_may_be_seen() -> None:
    past = Past(samples=3)
    past.add(0.0, {"queue": 9})
    past.add(1.0, {"queue": 1, "used:d": 5, "model:m": 2.0})
    past.add(2.0, {})
    past.add(3.0, {"queue": 3, "model:other": 1.0})
    assert past.figures({"m"}) == {
        "times": [1.0, 2.0, 3.0],
        "series": {"model:m": [2.0, None, None], "queue": [1, None, 3], "used:d": [5, None, None]},
    }


def test_curves_of_the_last_tasks_are_kept_and_told_of_those_that_are_seen() -> None:
    past = Past(tasks=2)
    for step in range(3):
        for task in ("a", "b"):
            past.point(point(step, task))
    past.point(point(9, "b"))
    past.point(point(0, "c"))
    assert past.curves({"a", "b"}) == [point(0, "b"), point(1, "b"), point(2, "b"), point(9, "b")]
    assert past.curves({"c", "a"}) == [point(0, "c")]


def test_figures_of_an_overview() -> None:
    picture = {"rates": {"queue": 2}, "devices": [{"id": "d", "total": 10, "free": 4}],
               "models": [{"id": "m", "throughput": 3.0}]}  # fmt: skip
    assert figures_of(picture) == {"queue": 2, "used:d": 6, "model:m": 3.0}


def test_who_comes_later_is_given_what_was_before(gateway: GatewayServer) -> None:
    http = gateway.client()
    made = http.post("/api/v1/load_model", json={"path": "/models/null"}).json()["value"]["id"]
    recorder = Recorder(gateway.gateway.sessions, gateway.gateway.past)

    async def looks() -> None:
        own = await gateway.gateway.sessions.own()
        for _ in range(2):
            await recorder.look(own)
        gateway.gateway.past.point(point(1, "not-mine"))

    gateway.run(looks())
    with http.stream("GET", "/api/v1/live?parts=overview,events") as answer:
        found: dict[str, Any] = {}
        name = ""
        for line in answer.iter_lines():
            if line.startswith("event: "):
                name = line[7:]
            elif line.startswith("data: ") and name in ("past", "points"):
                found[name] = json.loads(line[6:])
            if len(found) == 2:
                break
    series = found["past"]["series"]
    assert len(found["past"]["times"]) >= 2 and {len(each) for each in series.values()} == {len(found["past"]["times"])}
    assert series["requests_per_s"][-1] == 0.0 and series[f"model:{made}"][-1] is not None
    used = [values[-1] for name, values in series.items() if name.startswith("used:")]
    assert used and all(each > 0 for each in used) and found["points"] == []


def test_the_gateway_remembers_by_itself(gateway: GatewayServer) -> None:
    """From its start on, without anybody who looks."""

    async def remembered() -> None:
        while not gateway.gateway.past.figures(())["times"]:
            await asyncio.sleep(0.01)

    gateway.run(remembered())
