"""The tables of `control_object`; what most actions do is tested where they act."""

from __future__ import annotations

import pytest
from scripted import MEMORY, Inside, Program

from llmos.kernel.actions import ACTIONS, Action, find_action
from llmos.kernel.supervisor import DriverState
from llmos.syscalls.errors import BadArgument, BadState, Denied, NoDeviceMemory, NotSupported
from llmos.syscalls.types import Kind, Right


def test_names_in_the_tables_are_those_of_the_actions() -> None:
    for table in ACTIONS.values():
        assert {name: action.name for name, action in table.items()} == {name: name for name in table}


def test_required_options_are_known_ones() -> None:
    for table in ACTIONS.values():
        for action in table.values():
            assert set(action.required) <= set(action.options or {})


def test_adapters_and_aliases_need_write_all_else_manage() -> None:
    writing = {name for table in ACTIONS.values() for name, action in table.items() if action.right is Right.WRITE}
    assert writing == {"adapter_drop", "alias", "rollback", "tag"}


@pytest.mark.parametrize("kind", [Kind.SYSTEM, Kind.LEASE, Kind.BUFFER, Kind.FILE])
def test_kinds_without_actions_say_so(kind: Kind) -> None:
    with pytest.raises(NotSupported, match="it has none"):
        find_action(kind, "stop")


def test_what_is_misspelt_is_answered_with_what_is_near() -> None:
    with pytest.raises(NotSupported, match=r"no action 'slep'; did you mean 'sleep'\?"):
        find_action(Kind.MODEL, "slep")
    with pytest.raises(NotSupported, match="no action 'xyz'; known are reset, restart, start, stop"):
        find_action(Kind.DRIVER, "xyz")
    with pytest.raises(BadArgument, match=r"keep_alive: unknown option 'second'; did you mean 'seconds'\?"):
        find_action(Kind.MODEL, "keep_alive").check({"second": 1})
    with pytest.raises(BadArgument, match="sleep: unknown option 'deep'; it takes none"):
        find_action(Kind.MODEL, "sleep").check({"deep": 1})


def test_options_are_converted_and_what_does_not_fit_is_named() -> None:
    async def nothing(*_arguments: object) -> None: ...

    action = Action("act", nothing, options={"seconds": float, "name": str}, required=("name",))
    assert action.check({"name": "a", "seconds": 3}) == {"name": "a", "seconds": 3.0}
    for given, name in (({"name": 1}, "name"), ({"name": "a", "more": 1}, "more"), ({}, "name")):
        with pytest.raises(BadArgument, match="act: ") as error:
            action.check(given)
        assert error.value.name == name
    assert Action("act", nothing).check({}) == {}


def driver_of(program: Program, name: str = "null0") -> int:
    found: list[dict] = program.call("list_objects", system=program.system, kind="driver", prefix=name)
    return int(found[0]["handle"])


def test_a_driver_is_stopped_started_restarted_and_reset(
    kernel: Inside, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[tuple[object, ...]] = []
    for name in ("start", "stop", "restart", "reset"):
        monkeypatch.setattr(
            kernel.kernel.supervisor, name, lambda *given, name=name: done.append((name, given[0].name, *given[1:]))
        )
    driver = driver_of(program)
    for action in ("start", "stop", "restart", "reset"):
        program.control(driver, action)
    program.control(driver, "stop", drain_s=3)
    assert done == [
        ("start", "null0"), ("stop", "null0", 0.0), ("restart", "null0"), ("reset", "null0"), ("stop", "null0", 3.0)
    ]  # fmt: skip


def test_a_device_can_be_limited_and_freed_again(kernel: Inside, program: Program) -> None:
    device = program.grants["null0"]
    answer = program.wait(program.send("control_object", handle=device, action="limit", options={"bytes": 100}))
    assert "device.limit" in answer.reasons and answer.value["fields"]["free"] == 100
    assert isinstance(program.error("alloc_gpu", device=device, bytes=101), NoDeviceMemory)
    program.control(device, "limit", bytes=0)
    assert kernel.kernel.ledger.free("null0") == MEMORY


def test_a_limit_outlives_the_drivers_process(kernel: Inside, program: Program) -> None:
    program.control(program.grants["null0"], "limit", bytes=100)
    kernel.null.dies()
    kernel.null.starts()
    assert kernel.kernel.ledger.free("null0") == 100


def test_a_device_that_is_down_has_no_limit(kernel: Inside, program: Program) -> None:
    kernel.null.dies(DriverState.STOPPED)
    error = program.control_error(program.grants["null0"], "limit", bytes=1)
    assert isinstance(error, BadState) and error.state == "stopped"


def test_a_conversation_is_dropped(kernel: Inside, program: Program) -> None:
    context = program.call("open_context", model=program.load("tiny"))
    assert program.control(context["handle"], "drop")["state"] == "dropped"
    assert kernel.null.last("drop_context")["id"] == context["id"] and program.names("/proc/contexts") == []


def test_a_file_system_is_told_what_was_asked(kernel: Inside, program: Program) -> None:
    models = program.grants["/models"]
    program.control(models, "alias", name="tiny", alias="best", version="2")
    assert kernel.models.last("fs_control")["options"] == {"name": "tiny", "alias": "best", "version": "2"}
    for action, options in (
        ("rollback", {"name": "tiny", "version": "1"}), ("fsck", {"name": "tiny"}), ("gc", {"name": "tiny", "keep": 1}),
        ("tag", {"name": "tiny", "tag": "good", "remove": True}), ("fsck", {"repair": True}),
    ):  # fmt: skip
        program.control(models, action, **options)
        told = kernel.models.last("fs_control")
        assert (told["action"], told["options"]) == (action, options)


def test_a_reader_of_a_mount_cannot_change_it(program: Program) -> None:
    copy = program.call("dup_handle", handle=program.grants["/models"], rights=["read"])["handle"]
    error = program.control_error(copy, "alias", name="a", alias="b")
    assert isinstance(error, Denied) and error.missing == "write"
