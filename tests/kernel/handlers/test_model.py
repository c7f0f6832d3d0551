"""Models: load, plan, unload."""

from __future__ import annotations

import os
from pathlib import Path

from scripted import MEMORY, Inside, Program, inside, loaded, located, rows

from llmos.kernel.session import Peer
from llmos.kernel.supervisor import DriverState
from llmos.syscalls.driver import PlanRows
from llmos.syscalls.errors import (
    BadModel, BadState, Busy, Denied, DriverFailed, Exists, NoDeviceMemory, NotFound, NotSupported, OverQuota,
    PeerGone, Unavailable,
)  # fmt: skip
from llmos.syscalls.types import LedgerRow


def load_error(program: Program, name: str = "tiny", **body: object) -> object:
    return program.error("load_model", path=f"/models/{name}", **body)


def test_a_loaded_model_is_described(kernel: Inside, program: Program) -> None:
    info = program.call("load_model", path="/models/tiny", device=program.grants["null0"])
    assert (info["name"], info["version"], info["architecture"], info["device"]) == ("tiny", "1", "Echo", "null0")
    assert info["bytes"][0]["ledger"] == 1024
    assert kernel.null.names() == ["plan", "load"]


def test_without_a_device_policy_places_it(kernel: Inside, program: Program) -> None:
    answer = program.wait(program.send("load_model", path="/models/tiny"))
    assert answer.value["device"] == "null0"
    assert "device.placed" in answer.reasons


def test_a_cpu_goes_before_a_null_device(folder: Path) -> None:
    with inside(folder, drivers="cpu0,null0,models") as kernel:
        program = kernel.program()
        assert program.call("load_model", path="/models/tiny")["device"] == "cpu0"


def test_without_a_device_right_nothing_is_placed(folder: Path) -> None:
    settings = '[policy.default.handles]\nsystem = "all"\ndevice = ["read"]\n'
    with inside(folder, settings, drivers="null0,models") as kernel:
        stranger = kernel.program(Peer(12345, 12345, os.getpid()))
        error = load_error(stranger)
        assert isinstance(error, Denied) and error.missing == "create"


def test_a_device_that_is_down_takes_nothing(kernel: Inside, program: Program) -> None:
    kernel.null.dies(DriverState.STOPPED)
    error = load_error(program)
    assert isinstance(error, Unavailable) and "null0 is stopped" in str(error)
    assert isinstance(load_error(program, device=program.grants["null0"]), BadState)


def test_a_failed_driver_says_why(kernel: Inside, program: Program) -> None:
    kernel.null.dies(DriverState.FAILED, "exit status 3")
    error = load_error(program, device=program.grants["null0"])
    assert isinstance(error, DriverFailed) and error.cause == "exit status 3"


def test_a_load_waits_for_a_driver_that_starts(kernel: Inside, program: Program) -> None:
    kernel.null.dies()
    number = program.send("load_model", path="/models/tiny", device=program.grants["null0"])
    assert not program.done(number)
    kernel.null.starts()
    assert program.wait(number).value["name"] == "tiny"


def test_a_dry_run_says_what_would_have_to_leave(kernel: Inside, program: Program) -> None:
    model = program.load("tiny")
    kernel.null.answers["plan"] = PlanRows(rows=rows(MEMORY))
    plan = program.call("load_model", path="/models/other", options={"dry_run": True})["plan"]
    assert (plan["fits"], plan["would_evict"], plan["short"]) == (True, ["tiny"], 0) and plan["needed"] > plan["free"]
    (gone,), (reason,) = plan["evictions"], plan["reasons"]
    assert (gone["model"], gone["bytes"], gone["reason"]["code"]) == ("tiny", 1024, "model.evicted")
    assert reason["code"] == "plan.evicts" and reason["at"] > 0
    assert reason["numbers"] == {"needed": MEMORY, "free": MEMORY - 1024, "frees": 1024, "busy": 0}
    assert program.state(model) == "awake"
    program.control(model, "pin")
    plan = program.call("load_model", path="/models/other", options={"dry_run": True})["plan"]
    assert (plan["fits"], plan["would_evict"], plan["short"]) == (False, [], 1024)
    (reason,) = plan["reasons"]
    assert reason["text"].endswith("1.0 KiB are missing whatever sleeps (held by weights of tiny: 1.0 KiB)")


def test_a_dry_run_says_for_whose_requests_it_would_wait(kernel: Inside, program: Program) -> None:
    model = program.load("tiny")
    number = program.start(model, "x")
    kernel.null.answers["plan"] = PlanRows(rows=rows(MEMORY))
    plan = program.call("load_model", path="/models/other", options={"dry_run": True})["plan"]
    assert (plan["fits"], plan["would_evict"]) == (True, ["tiny"])
    text = plan["reasons"][0]["text"]
    assert text.endswith("tiny (1.0 KiB) would be put to sleep when what runs on them has ended (1 request)")
    kernel.null.release("submit")
    program.wait(number)


def test_a_plan_for_an_adapter_keeps_its_base(kernel: Inside, program: Program) -> None:
    base = program.load("tiny")
    kernel.null.answers["plan"] = PlanRows(rows=rows(MEMORY))
    options = {"dry_run": True, "adapter": True}
    plan = program.call("load_model", path="/models/other", base=base, options=options)["plan"]
    assert (plan["fits"], plan["would_evict"], plan["short"]) == (False, [], 1024)


def test_how_to_quantize_is_the_devices_to_know(kernel: Inside, program: Program) -> None:
    program.call("load_model", path="/models/tiny", options={"quant": {"width": 4, "head": 16}})
    asked = kernel.null.last("load")["options"]["quant"]
    assert (asked["width"], asked["head"]) == (4, 16)


def test_a_dry_run_plans_and_loads_nothing(kernel: Inside, program: Program) -> None:
    info = program.call("load_model", path="/models/tiny", options={"dry_run": True})
    assert info["plan"]["fits"] and info["plan"]["needed"] == 1024
    assert info["handle"] == 0 and info["context"] == 64
    assert kernel.null.names() == ["plan"] and kernel.models.names() == ["locate", "release"]
    kernel.null.answers["plan"] = PlanRows(rows=rows(2 * MEMORY))
    plan = program.call("load_model", path="/models/tiny", options={"dry_run": True})["plan"]
    assert not plan["fits"] and plan["would_evict"] == []
    kernel.null.answers["plan"] = BadModel("no")
    assert isinstance(load_error(program, options={"dry_run": True}), BadModel)
    assert kernel.models.names()[-1] == "release"


def test_what_does_not_fit_is_refused_with_the_numbers(kernel: Inside, program: Program) -> None:
    kernel.null.answers["plan"] = PlanRows(rows=rows(2 * MEMORY))
    error = load_error(program)
    assert isinstance(error, NoDeviceMemory) and error.needed == 2 * MEMORY and error.free == MEMORY
    assert "load" not in kernel.null.names() and kernel.models.names()[-1] == "release"
    assert program.names("/proc/models") == []


def test_errors_of_the_files_and_the_device_are_the_answer(kernel: Inside, program: Program) -> None:
    kernel.models.answers["locate"] = NotFound("no such model")
    assert isinstance(load_error(program), NotFound)
    kernel.models.answers["locate"] = located
    kernel.null.answers["load"] = BadModel("damaged", file="w")
    error = load_error(program)
    assert isinstance(error, BadModel) and error.file == "w"
    assert kernel.kernel.ledger.free("null0") == MEMORY


def test_loading_what_is_loaded_shares_it(kernel: Inside, program: Program) -> None:
    one = program.call("load_model", path="/models/tiny")
    two = program.call("load_model", path="/models/tiny")
    assert one["handle"] == two["handle"] and kernel.null.names().count("load") == 1
    other = program.call("load_model", path="/models/tiny", options={"name": "second", "max_context": 8})
    assert other["id"] != one["id"]


def test_loads_at_the_same_time_are_one(kernel: Inside, program: Program) -> None:
    kernel.null.holds.add("load")
    first = program.send("load_model", path="/models/tiny")
    second = program.send("load_model", path="/models/tiny")
    kernel.null.progress("load", 3)
    kernel.null.release("load")
    answer = program.wait(second)
    assert program.wait(first).value["id"] == answer.value["id"]
    assert "load.shared" in answer.reasons and answer.progress[0]["done"] == 3


def test_loads_of_different_models_do_not_wait_for_each_other_where_both_fit(kernel: Inside, program: Program) -> None:
    """Their host does one after the other; the kernel has promised both their bytes before."""
    kernel.null.answers["plan"] = PlanRows(rows=rows(MEMORY // 2))
    kernel.null.answers["load"] = loaded(MEMORY // 2)
    kernel.null.holds.add("load")
    first, second = (program.send("load_model", path=f"/models/{name}") for name in ("one", "two"))
    assert kernel.null.names().count("load") == 2 and kernel.kernel.ledger.free("null0") == 0
    third = program.send("load_model", path="/models/three")
    assert not program.done(third) and kernel.null.names().count("load") == 2, "there is no room for it yet"
    assert kernel.kernel.ledger.excess("null0") == 0
    kernel.null.release("load")
    assert program.done(first) and not program.done(second) and kernel.null.names()[-1] == "load"
    kernel.null.release("load")
    assert program.done(second) and not program.done(third) and kernel.kernel.ledger.free("null0") == 0
    kernel.null.release("load")
    assert program.wait(third).error is None and kernel.kernel.ledger.free("null0") == 0


def test_loads_that_wait_for_room_do_not_exceed_what_policy_allows(folder: Path) -> None:
    tenth = MEMORY // 10
    settings = f"[policy.uid.{os.getuid()}.limits]\ndevice_bytes = {12 * tenth}\n"
    with inside(folder, settings, drivers="null0,models") as kernel:
        program = kernel.program()
        resting = [LedgerRow(device="host", what="weights", owner="", allocator=5 * tenth)]
        answers = {"plan": PlanRows(rows=rows(5 * tenth)), "load": loaded(5 * tenth), "sleep": loaded(rows=resting)}
        kernel.null.answers.update(answers)
        program.load("tiny")
        kernel.null.holds.add("sleep")
        numbers = []
        for name, size in (("one", 6), ("two", 3)):
            kernel.null.answers.update(plan=PlanRows(rows=rows(size * tenth)), load=loaded(size * tenth))
            numbers.append(program.send("load_model", path=f"/models/{name}"))
        kernel.null.answers["load"] = loaded(6 * tenth)
        kernel.null.release("sleep")
        given, refused = (program.wait(number) for number in numbers)
        assert given.error is None and isinstance(refused.error, OverQuota)
        assert sum(row.ledger for row in kernel.kernel.ledger.rows("null0")) == 6 * tenth
        assert [model.name for model in kernel.kernel.models.by_id.values()] == ["tiny", "one"]


def test_a_failed_load_fails_for_all_who_wait(kernel: Inside, program: Program) -> None:
    kernel.null.holds.add("load")
    numbers = [program.send("load_model", path="/models/tiny") for _ in range(2)]
    kernel.null.release("load", BadModel("damaged"))
    assert all(isinstance(program.wait(number).error, BadModel) for number in numbers)


def test_a_name_belongs_to_one_model(kernel: Inside, program: Program) -> None:
    program.load("tiny")
    error = load_error(program, "tiny@2")
    assert isinstance(error, Exists) and "replace=True" in str(error) and "--replace" in str(error)


def test_a_name_can_be_taken_over(kernel: Inside, program: Program) -> None:
    old = program.load("tiny")
    running = program.start(old, "x")
    new = program.call("load_model", path="/models/tiny@2", options={"replace": True})
    assert new["version"] == "2" and len(program.names("/proc/models")) == 2
    kernel.null.release("submit")
    program.wait(running)
    assert program.names("/proc/models") == [new["id"]]


def test_loading_a_sleeping_model_wakes_it(kernel: Inside, program: Program) -> None:
    model = program.load("tiny")
    program.control(model, "sleep")
    assert program.state(model) == "asleep"
    assert program.load("tiny") == model
    assert program.state(model) == "awake"


def test_an_adapter_lives_on_its_base(kernel: Inside, program: Program) -> None:
    base = program.load("tiny")
    program.control(base, "sleep")
    adapter = program.call("load_model", path="/models/adapter", base=base, options={"adapter": True})
    assert program.state(base) == "awake"
    assert kernel.null.last("load")["base"] == kernel.null.calls[1][1]["id"]
    assert isinstance(program.error("unload_model", model=base), Busy)
    assert program.call("unload_model", model=base, force=True)["bytes"] > 0
    assert program.names("/proc/models") == [] and adapter["name"] == "adapter"


def test_a_busy_model_is_unloaded_only_by_force(kernel: Inside, program: Program) -> None:
    model = program.load("tiny")
    running = program.start(model, "x")
    error = program.error("unload_model", model=model)
    assert isinstance(error, Busy) and "1 request to answer" in str(error)
    program.call("unload_model", model=model, force=True)
    kernel.null.release("submit")
    assert program.wait(running).error is None
    assert kernel.kernel.ledger.free("null0") == MEMORY


def test_a_model_that_loads_cannot_be_unloaded(kernel: Inside, program: Program) -> None:
    model = program.load("tiny")
    kernel.null.holds.add("sleep")
    sleeping = program.send("control_object", handle=model, action="sleep")
    assert isinstance(program.error("unload_model", model=model), Busy)
    kernel.null.release("sleep")
    program.wait(sleeping)


def test_a_device_that_dies_during_a_load_ends_it(kernel: Inside, program: Program) -> None:
    kernel.null.holds.add("load")
    number = program.send("load_model", path="/models/tiny")
    kernel.null.dies()
    assert isinstance(program.wait(number).error, PeerGone)


def test_transformations_of_an_unknown_kind_are_not_offered(program: Program) -> None:
    error = program.error("transform_model", sources=["/models/tiny"], out="/models/x", recipe={"kind": "distil"})
    assert isinstance(error, NotSupported)
