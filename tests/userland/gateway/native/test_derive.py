"""What follows from the call table: arguments that name objects, timeouts, answers without handles."""

from __future__ import annotations

from typing import Any

import pytest
import strategies
from hypothesis import given, settings
from hypothesis import strategies as st

from llmos.syscalls.errors import BadArgument
from llmos.syscalls.spec import SYSCALLS, CallSpec
from llmos.syscalls.types import Handle, Kind, Metric, ModelInfo, ObjectInfo, Reason
from llmos.userland.gateway.native.derive import answer, bare, made, offered, timeout_of, wanted
from llmos.userland.gateway.native.scopes import CALLS

SYSTEM = Handle(7)


def test_what_is_offered_stands_in_the_table() -> None:
    assert {spec.name for spec in offered()} == set(CALLS)


@settings(max_examples=40)
@given(st.data())
def test_any_good_call_can_be_made_from_json(data: st.DataObject) -> None:
    spec: CallSpec = data.draw(st.sampled_from(offered()))
    body = data.draw(strategies.bodies(spec))
    named = {
        field.name: f"{(field.kind or Kind.MODEL).value}:x"
        for field in spec.handles
        if body.get(field.name) is not None
    }
    told = {name: value for name, value in body.items() if name != "deadline"}
    for field in spec.handles:
        told.pop(field.name, None)
    told |= {name: text for name, text in named.items() if spec_field(spec, name).kind is not Kind.SYSTEM}
    found = wanted(spec, told)
    assert {each.field.name for each in found} == told.keys() & named.keys()
    call = made(spec, told, {each.field.name: Handle(3) for each in found}, SYSTEM)
    assert isinstance(call, spec.cls)
    for field in spec.handles:
        if field.kind is Kind.SYSTEM:
            assert getattr(call, field.name) == SYSTEM


def spec_field(spec: CallSpec, name: str) -> Any:
    return next(field for field in spec.fields if field.name == name)


@pytest.mark.parametrize(
    ("call", "name", "text", "kind", "rest"),
    [
        ("infer", "model", "tiny", Kind.MODEL, "tiny"), ("infer", "model", "model:tiny", Kind.MODEL, "tiny"),
        ("infer", "model", "org/x:q4", Kind.MODEL, "org/x:q4"), ("control_object", "handle", "m-1", None, "m-1"),
        ("control_object", "handle", "driver:cpu0", Kind.DRIVER, "cpu0"),
        ("stat_object", "handle", "system", Kind.SYSTEM, "system"),
        ("stat_object", "handle", "model:a:b", Kind.MODEL, "a:b"),
    ],
)  # fmt: skip
def test_an_object_is_named_by_a_text(call: str, name: str, text: str, kind: Kind | None, rest: str) -> None:
    (found,) = wanted(SYSCALLS[call], {name: text})
    assert (found.kind, found.name, found.field.name) == (kind, rest, name)


@pytest.mark.parametrize(
    ("call", "body", "name"),
    [
        ("infer", {"model": 5}, "model"), ("infer", {"model": ""}, "model"), ("infer", {"model": None}, "model"),
        ("infer", {}, "model"),
        ("infer", {"model": "x", "context": 3}, "context"), ("read_metrics", {"system": "x"}, "system"),
        ("control_object", {"handle": "modl:x"}, "handle"),
    ],
)  # fmt: skip
def test_what_names_no_object_is_refused(call: str, body: dict[str, Any], name: str) -> None:
    with pytest.raises(BadArgument) as raised:
        wanted(SYSCALLS[call], body)
    assert raised.value.name == name


def test_what_may_be_left_out_may_be_null() -> None:
    assert [each.field.name for each in wanted(SYSCALLS["infer"], {"model": "x", "context": None})] == ["model"]
    assert wanted(SYSCALLS["load_model"], {"path": "/models/x"}) == []


def test_seconds_instead_of_a_deadline() -> None:
    assert timeout_of({}, 60.0) == 60.0 and timeout_of({"timeout": None}, 60.0) == 60.0
    assert timeout_of({"timeout": 5}, 60.0) == 5.0 and timeout_of({"timeout": 500.5}, 60.0) == 60.0
    for bad in (0, -1, "5", True, [], float("nan"), float("inf"), 1e9):
        with pytest.raises(BadArgument) as raised:
            timeout_of({"timeout": bad}, 60.0)
        assert raised.value.name == "timeout"
    with pytest.raises(BadArgument, match="timeout in seconds"):
        made(SYSCALLS["stat_path"], {"path": "/x", "deadline": 5}, {}, SYSTEM)


def test_an_answer_holds_no_handle() -> None:
    info = ObjectInfo(id="m-1", kind="model", name="x", state="awake", handle=Handle(5), fields={"handle": "kept"})
    told = answer([info], "r-1", [Reason(code="c", text="t")])
    assert "handle" not in told["value"][0] and told["value"][0]["fields"] == {"handle": "kept"}
    assert told["request"] == "r-1" and told["reasons"][0]["text"] == "t"
    loaded = ModelInfo(handle=Handle(1), id="m", path="/p", version="1", device="d", architecture="a")
    assert "handle" not in bare(loaded)
    assert bare({"a": Metric(kind="gauge", value=1.0)}) == {
        "a": {"kind": "gauge", "value": 1.0, "unit": "", "help": "", "labels": {}, "buckets": {}}
    }
