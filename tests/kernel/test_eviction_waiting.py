"""Room that has to be waited for: busy models are drained, take turns, and nobody waits in vain."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from scripted import HOST_MEMORY, MEMORY, Inside, Program, inside, loaded, rows

from llmos.syscalls.driver import PlanRows
from llmos.syscalls.errors import BadState, Busy, Cancelled, NoDeviceMemory, NotSupported, PeerGone
from llmos.syscalls.types import LedgerRow

BIG = MEMORY * 6 // 10
STAY = 30.0


def sized(kernel: Inside, size: int) -> None:
    """From now on models take so many bytes."""
    kernel.null.answers.update(plan=PlanRows(rows=rows(size)), load=loaded(size), wake=loaded(size))


@pytest.fixture
def kernel(folder: Path) -> Iterator[Inside]:
    with inside(folder, drivers="null0,models") as kernel:
        sized(kernel, BIG)
        yield kernel


@pytest.fixture
def program(kernel: Inside) -> Program:
    return kernel.program()


def load(program: Program, name: str, **options: object) -> int:
    handle = {"device": options.pop("device")} if "device" in options else {}
    return program.send("load_model", path=f"/models/{name}", options=options, **handle)


def decided(kernel: Inside, code: str) -> list[str]:
    return [reason.text for reason in kernel.kernel.decisions.of("null0") if reason.code == code]


def states(program: Program, *models: int) -> list[str]:
    return [program.state(model) for model in models]


def test_a_load_waits_until_the_busy_model_has_ended_what_it_runs(kernel: Inside, program: Program) -> None:
    one = program.load("one")
    running = program.start(one, "first")
    kernel.advance(STAY)
    waiting = load(program, "two")
    assert not program.done(waiting) and decided(kernel, "memory.waits") == [
        "two waits for room: 1 request under way on one"
    ]
    later = program.start(one, "second")  # a slot is free, but the model is drained
    assert kernel.null.names().count("submit") == 1
    kernel.null.release("submit")
    program.wait(running)
    two = program.wait(waiting).value["handle"]
    assert kernel.null.names()[-4:] == ["load", "sleep", "wake", "submit"]
    kernel.null.release("submit")  # two was loaded, and since nobody used it, one came back for its request
    assert program.wait(later).error is None and states(program, one, two) == ["awake", "asleep"]


def test_what_would_not_even_fit_alone_is_refused_at_once(kernel: Inside, program: Program) -> None:
    one = program.load("one")
    program.start(one, "x")
    sized(kernel, 2 * MEMORY)
    error = program.error("load_model", path="/models/giant")
    assert isinstance(error, NoDeviceMemory) and error.needed == 2 * MEMORY
    sized(kernel, BIG)
    program.control(one, "pin")
    assert isinstance(program.error("load_model", path="/models/two"), NoDeviceMemory)


def test_a_model_that_has_just_become_ready_keeps_its_turn(kernel: Inside, program: Program) -> None:
    one = program.load("one")
    program.start(one, "first")
    waiting = load(program, "two")
    second = program.start(one, "second")
    assert kernel.null.names().count("submit") == 2
    kernel.advance(1.0)
    third = program.start(one, "third")
    kernel.null.release("submit")
    assert kernel.null.names().count("submit") == 3  # within its turn it goes on
    kernel.advance(STAY)
    fourth = program.start(one, "fourth")
    kernel.null.release("submit")
    kernel.null.release("submit")
    assert program.wait(second).error is None and program.wait(third).error is None
    assert program.wait(waiting).error is None and not program.done(fourth)


def test_who_waits_is_served_in_order_and_a_small_one_does_not_push_in(kernel: Inside, program: Program) -> None:
    one = program.load("one")
    program.start(one, "x")
    kernel.advance(STAY)
    large = load(program, "large")
    sized(kernel, 1024)
    small = load(program, "small")
    assert not program.done(small) and not program.done(large)
    kernel.null.release("submit")
    assert program.wait(large).error is None and program.wait(small).error is None


def test_a_request_that_is_given_up_waits_no_longer_and_the_drained_model_goes_on(
    kernel: Inside, program: Program
) -> None:
    one = program.load("one")
    program.start(one, "first")
    kernel.advance(STAY)
    waiting = load(program, "two")
    second = program.start(one, "second")
    program.cancel(waiting)
    kernel.advance(1.0)
    assert isinstance(program.wait(waiting).error, Cancelled)
    assert kernel.null.names().count("submit") == 2 and not program.done(second)
    assert len(kernel.kernel.models.by_id) == 1


def test_nobody_waits_for_a_device_that_has_ended(kernel: Inside, program: Program) -> None:
    one = program.load("one")
    program.start(one, "x")
    kernel.advance(STAY)
    waiting = load(program, "two")
    kernel.null.dies()
    assert program.wait(waiting).error is not None
    kernel.null.starts()
    assert states(program, one) == ["awake"]


def test_a_model_that_cannot_sleep_is_no_room(kernel: Inside, program: Program) -> None:
    program.load("one")
    kernel.null.answers["sleep"] = NotSupported("no", why="null")
    assert isinstance(program.error("load_model", path="/models/two"), NoDeviceMemory)
    kernel.null.answers["sleep"] = BadState("busy", state="busy")
    assert isinstance(program.error("load_model", path="/models/two"), NoDeviceMemory)


def test_a_model_that_is_used_again_while_another_falls_asleep_is_left(kernel: Inside, program: Program) -> None:
    sized(kernel, MEMORY // 4)
    models = [program.load(name) for name in ("a", "b", "c")]
    sized(kernel, MEMORY * 9 // 10)
    kernel.null.holds.add("sleep")
    waiting = load(program, "large")
    busy = next(model for model in models if program.state(model) == "awake")
    program.start(busy, "x")
    kernel.null.holds.discard("sleep")
    kernel.null.release("sleep")
    assert not program.done(waiting)
    kernel.advance(STAY)
    kernel.null.release("submit")
    assert program.wait(waiting).error is None and states(program, *models) == ["asleep"] * 3


# ---- groups


def test_models_apart_are_never_awake_together(kernel: Inside, program: Program) -> None:
    sized(kernel, 1024)
    one = program.call("load_model", path="/models/one", options={"group": "!x"})["handle"]
    alone = program.load("alone")
    two = program.call("load_model", path="/models/two", options={"group": "!x"})["handle"]
    assert states(program, one, two, alone) == ["asleep", "awake", "awake"]
    program.start(two, "x")
    kernel.advance(STAY)
    number = program.start(one, "y")
    assert states(program, one, two) == ["asleep", "awake"]
    kernel.null.release("submit")
    assert states(program, one, two) == ["awake", "asleep"]
    kernel.null.release("submit")
    assert program.wait(number).error is None
    program.control(one, "pin")
    assert isinstance(program.control_error(two, "wake"), Busy)


def test_who_is_given_up_waits_no_longer_for_a_rival(kernel: Inside, program: Program) -> None:
    sized(kernel, 1024)
    one = program.call("load_model", path="/models/one", options={"group": "!x"})["handle"]
    program.start(one, "first")
    kernel.advance(STAY)
    waiting = load(program, "two", group="!x")
    second = program.start(one, "second")
    program.cancel(waiting)
    kernel.advance(1.0)
    assert isinstance(program.wait(waiting).error, Cancelled)
    assert kernel.null.names().count("submit") == 2 and not program.done(second), "one is drained for nobody"
    assert len(kernel.kernel.models.by_id) == 1


def test_models_together_sleep_and_wake_as_one(kernel: Inside, program: Program) -> None:
    sized(kernel, MEMORY // 4)
    pair = [
        program.call("load_model", path=f"/models/{name}", options={"group": "g", "keep_alive": idle})["handle"]
        for name, idle in (("one", 5), ("two", 50))
    ]
    kernel.advance(10)
    assert states(program, *pair) == ["awake", "awake"]  # the other one is still wanted
    kernel.advance(50)
    assert states(program, *pair) == ["asleep", "asleep"]
    program.start(pair[0], "x")
    assert states(program, *pair) == ["awake", "awake"]
    kernel.null.release("submit")
    sized(kernel, MEMORY * 7 // 10)
    third = program.load("three")
    assert states(program, *pair, third) == ["asleep", "asleep", "awake"]


def test_a_member_that_wakes_already_is_not_woken_again(kernel: Inside, program: Program) -> None:
    sized(kernel, MEMORY // 4)
    pair = [
        program.call("load_model", path=f"/models/{name}", options={"group": "g", "keep_alive": 5})["handle"]
        for name in ("one", "two")
    ]
    kernel.advance(10)
    kernel.null.holds.add("plan")
    second = program.send("control_object", handle=pair[1], action="wake")
    kernel.settle()
    kernel.null.holds.remove("plan")
    first = program.send("control_object", handle=pair[0], action="wake")
    assert program.wait(first).error is None
    planned = [name for name, _body in kernel.null.calls].count("plan")
    kernel.null.release("plan")
    assert program.wait(second).error is None and states(program, *pair) == ["awake", "awake"]
    assert [name for name, _body in kernel.null.calls].count("plan") == planned


def test_a_host_that_ends_while_room_is_made_is_told_as_that(kernel: Inside, program: Program) -> None:
    program.load("one")
    kernel.null.holds.add("sleep")
    waiting = load(program, "two")
    kernel.null.dies()
    assert isinstance(program.wait(waiting).error, PeerGone)


def test_without_a_link_nothing_is_decided(kernel: Inside, program: Program) -> None:
    one = program.load("one")
    program.start(one, "x")
    kernel.advance(STAY)
    waiting = load(program, "two")
    link, kernel.null.driver.link = kernel.null.driver.link, None
    kernel.kernel.rooms.look("null0")
    kernel.settle()
    assert isinstance(program.wait(waiting).error, PeerGone)
    kernel.null.driver.link = link


# ---- models that leave meanwhile


def test_a_device_may_end_after_a_drained_model_was_unloaded(kernel: Inside, program: Program) -> None:
    sized(kernel, MEMORY * 4 // 10)
    one, two = program.load("one"), program.load("two")
    program.start(one, "x")
    program.start(two, "x")
    kernel.advance(STAY)
    sized(kernel, MEMORY)
    waiting = load(program, "large")
    program.call("unload_model", model=one, force=True)
    assert not program.done(waiting)
    kernel.null.dies()
    assert isinstance(program.wait(waiting).error, PeerGone)


def test_a_model_of_another_device_is_drained_on(folder: Path) -> None:
    with inside(folder, drivers="null0,cpu0,models") as kernel:
        sized(kernel, BIG)
        program = kernel.program()
        one = program.load("one", device="null0")
        running = program.start(one, "x")
        kernel.advance(STAY)
        waiting = load(program, "two", device=program.grants["null0"])
        kernel.hosts["cpu0"].dies()
        kernel.null.release("submit")
        assert program.wait(running).error is None and program.wait(waiting).error is None
        assert states(program, one) == ["asleep"]


def host_row(size: int) -> LedgerRow:
    return LedgerRow(device="host", what="weights", owner="", allocator=size, driver=size)


def test_a_replaced_model_that_falls_asleep_first_leaves_nothing_behind(kernel: Inside, program: Program) -> None:
    one = program.load("one")
    running = program.start(one, "x")
    kernel.advance(STAY)
    sized(kernel, MEMORY * 3 // 10)
    program.call("load_model", path="/models/other", options={"name": "one", "replace": True})
    sized(kernel, BIG)
    kernel.null.answers["sleep"] = loaded(rows=[host_row(1024)])
    waiting = load(program, "large")
    kernel.null.release("submit")  # the old one is idle: it makes room, and is unloaded after that
    program.wait(running)
    assert program.wait(waiting).error is None
    kept = {model.host_id for model in kernel.kernel.models.by_id.values()}
    assert {row.owner for row in kernel.kernel.ledger.rows() if row.what == "weights"} <= kept
    assert len(kernel.kernel.models.by_id) == 2


def test_a_model_that_is_unloaded_while_a_place_is_made_for_it_is_gone(kernel: Inside, program: Program) -> None:
    sized(kernel, MEMORY // 4)
    kernel.null.answers["sleep"] = loaded(rows=[host_row(HOST_MEMORY * 6 // 10)])
    sleeper, one = program.load("sleeper"), program.load("one")
    program.control(sleeper, "sleep")
    named = kernel.kernel.models.named("one")
    assert named is not None
    named.resting = HOST_MEMORY // 2  # so the other one has to leave memory first
    sized(kernel, MEMORY)
    kernel.null.holds.add("unload")
    waiting = load(program, "large")
    kernel.null.holds.discard("unload")
    program.call("unload_model", model=one)
    kernel.null.release("unload")
    assert program.wait(waiting).error is None and program.state(sleeper) == "cold"


# ---- whose turn it is


def asleep(kernel: Inside, program: Program, *names: str) -> list[int]:
    """Models that sleep, each of which takes most of the device."""
    found = [program.load(name) for name in names]
    program.control(found[-1], "sleep")
    assert states(program, *found) == ["asleep"] * len(found)
    return found


def test_room_goes_to_the_higher_work_class_first(kernel: Inside, program: Program) -> None:
    low, middle, high = asleep(kernel, program, "low", "middle", "high")
    one = program.load("one")
    running = program.start(one, "x", call_work_class="background")
    kernel.advance(STAY - 1)
    asked = [program.start(model, "x", call_work_class=name) for model, name in (
        (low, "background"), (middle, "batch"), (high, "interactive"),
    )]  # fmt: skip
    kernel.null.release("submit")
    assert program.wait(running).error is None and states(program, low, middle, high) == ["asleep", "asleep", "awake"]
    for number in reversed(asked):
        kernel.advance(5.0)
        kernel.null.release("submit")
        assert program.wait(number).error is None


def test_a_lower_class_does_not_drain_a_higher_one_until_it_has_waited_too_long(
    kernel: Inside, program: Program
) -> None:
    (low,) = asleep(kernel, program, "low")
    one = program.load("one")
    running = program.start(one, "x")
    kernel.advance(1.0)
    waiting = program.start(low, "y", call_work_class="batch")
    kernel.advance(STAY - 2)
    second = program.start(one, "x")
    assert kernel.null.names().count("submit") == 2 and "model.draining" not in codes(kernel)
    kernel.advance(3.0)
    third = program.start(one, "x")
    assert kernel.null.names().count("submit") == 2 and "model.draining" in codes(kernel)
    kernel.null.release("submit")
    kernel.null.release("submit")
    assert program.wait(running).error is None and program.wait(second).error is None
    assert states(program, one, low) == ["asleep", "awake"], "who waited for it goes behind who waited too long"
    kernel.null.release("submit")
    assert program.wait(waiting).error is None
    kernel.null.release("submit")
    assert program.wait(third).error is None


def codes(kernel: Inside) -> list[str]:
    models = kernel.kernel.models.by_id
    return [reason.code for id in models for reason in kernel.kernel.decisions.of(id)]


def test_who_comes_while_room_is_made_and_goes_first_takes_it(kernel: Inside, program: Program) -> None:
    low, high = asleep(kernel, program, "low", "high")
    program.load("one")
    kernel.null.holds.add("sleep")
    first = program.start(low, "x", call_work_class="batch")
    second = program.start(high, "x")
    kernel.null.holds.discard("sleep")
    kernel.null.release("sleep")
    assert states(program, low, high) == ["asleep", "awake"]
    kernel.null.release("submit")
    assert program.wait(second).error is None and states(program, low, high) == ["awake", "asleep"]
    kernel.null.release("submit")
    assert program.wait(first).error is None


def test_who_made_room_waits_while_who_goes_first_needs_more(kernel: Inside, program: Program) -> None:
    (low,) = asleep(kernel, program, "low")
    sized(kernel, MEMORY * 3 // 10)
    running = program.start(program.load("two"), "x")
    sized(kernel, BIG)
    program.load("one")
    kernel.advance(STAY)
    kernel.null.holds.add("sleep")
    first = program.start(low, "x", call_work_class="batch")
    sized(kernel, MEMORY)
    second = load(program, "huge")
    kernel.null.holds.discard("sleep")
    kernel.null.release("sleep")
    assert states(program, low) == ["asleep"] and not program.done(second), "there was room for low"
    kernel.null.release("submit")
    assert program.wait(running).error is None and program.wait(second).error is None
    kernel.null.release("submit")
    assert program.wait(first).error is None
