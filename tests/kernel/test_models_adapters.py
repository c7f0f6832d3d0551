"""A base with its adapters: they sleep, wake, leave and are lost as one, and the use of one is the use of all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from scripted import HOST_MEMORY, MEMORY, Inside, Program, inside, loaded, rows

from llmos.syscalls.driver import PlanRows
from llmos.syscalls.errors import BadModel, BadState, Busy, NotSupported, PeerGone
from llmos.syscalls.events import Memory

BIG, SMALL = MEMORY * 4 // 10, MEMORY // 10
STAY = 30.0


class Pair(NamedTuple):
    base: int
    tone: int
    """The adapter."""


def sized(kernel: Inside, size: int) -> None:
    """From now on models take so many bytes."""
    kernel.null.answers.update(plan=PlanRows(rows=rows(size)), load=loaded(size))


@pytest.fixture
def kernel(folder: Path) -> Iterator[Inside]:
    with inside(folder, drivers="null0,models") as kernel:
        kernel.null.answers["wake"] = loaded(BIG)
        yield kernel


@pytest.fixture
def pair(kernel: Inside, program: Program) -> Pair:
    sized(kernel, BIG)
    base = program.load("base")
    sized(kernel, SMALL)
    tone = program.call("load_model", path="/models/tone", base=base)["handle"]
    sized(kernel, BIG)
    return Pair(base, tone)


def states(program: Program, pair: Pair) -> list[str]:
    return [program.state(each) for each in pair]


def held(kernel: Inside) -> dict[str, int]:
    """Bytes of the device by model."""
    ledger = kernel.kernel.ledger
    return {model.name: ledger.held(model.host_id) for model in kernel.kernel.models.by_id.values()}


def answered(kernel: Inside, program: Program, number: int) -> bool:
    kernel.null.release("submit")
    return program.wait(number).error is None


def control(program: Program, model: int, action: str, **options: Any) -> int:
    return program.send("control_object", handle=model, action=action, options=options)


def test_they_sleep_and_wake_together(kernel: Inside, program: Program, pair: Pair) -> None:
    program.control(pair.base, "sleep")
    assert states(program, pair) == ["asleep", "asleep"] and held(kernel) == {"base": 0, "tone": 0}
    number = program.start(pair.tone, "x")
    assert states(program, pair) == ["awake", "awake"] and held(kernel) == {"base": BIG, "tone": SMALL}
    assert answered(kernel, program, number) and kernel.null.names()[-2:] == ["wake", "submit"]
    program.control(pair.base, "sleep")
    program.control(pair.tone, "wake")
    assert states(program, pair) == ["awake", "awake"]


def test_they_wake_with_the_room_that_they_have_whatever_others_take_meanwhile(
    kernel: Inside, program: Program, pair: Pair
) -> None:
    program.control(pair.base, "sleep")
    kernel.null.holds.add("wake")
    number = control(program, pair.tone, "wake")
    kernel.null.event(Memory(device="null0", rows=[], foreign_bytes=MEMORY))
    kernel.null.release("wake")
    assert program.wait(number).error is None and states(program, pair) == ["awake", "awake"]
    assert held(kernel) == {"base": BIG, "tone": SMALL}


def test_an_adapter_does_not_sleep_alone(kernel: Inside, program: Program, pair: Pair) -> None:
    assert isinstance(program.control_error(pair.tone, "sleep"), NotSupported)
    program.control(pair.tone, "keep_alive", seconds=0)
    kernel.advance(5.0)
    assert states(program, pair) == ["awake", "awake"]


def test_the_use_of_an_adapter_is_the_use_of_its_base(kernel: Inside, program: Program, pair: Pair) -> None:
    program.control(pair.base, "keep_alive", seconds=5)
    number = program.start(pair.tone, "x")
    kernel.advance(6.0)
    assert isinstance(program.control_error(pair.base, "sleep"), BadState)
    assert answered(kernel, program, number)
    kernel.advance(3.0)
    assert states(program, pair) == ["awake", "awake"]
    kernel.advance(3.0)
    assert states(program, pair) == ["asleep", "asleep"]


def test_a_pinned_adapter_keeps_its_base(kernel: Inside, program: Program, pair: Pair) -> None:
    program.control(pair.tone, "pin")
    sized(kernel, MEMORY * 6 // 10)
    assert program.error("load_model", path="/models/other") is not None
    program.control(pair.tone, "unpin")
    program.load("other")
    assert states(program, pair) == ["asleep", "asleep"]


def test_a_busy_adapter_is_drained_with_its_base(kernel: Inside, program: Program, pair: Pair) -> None:
    first = program.start(pair.tone, "x")
    kernel.advance(STAY)
    sized(kernel, MEMORY * 6 // 10)
    waiting = program.send("load_model", path="/models/other")
    second, third = program.start(pair.tone, "y"), program.start(pair.base, "z")
    assert len(kernel.null.held["submit"]) == 1 and not program.done(waiting)
    sized(kernel, BIG)
    assert answered(kernel, program, first) and program.wait(waiting).error is None
    assert states(program, pair) == ["awake", "awake"], "nobody used the other one, so it made room in its turn"
    kernel.null.release("submit")
    kernel.null.release("submit")
    assert program.wait(second).error is None and program.wait(third).error is None


def test_who_drained_them_and_gives_up_lets_both_go_on(kernel: Inside, program: Program, pair: Pair) -> None:
    first = program.start(pair.tone, "x")
    kernel.advance(STAY)
    sized(kernel, MEMORY * 6 // 10)
    waiting = program.send("load_model", path="/models/other")
    later = [program.start(each, "y") for each in pair]
    program.cancel(waiting)
    kernel.advance(1.0)
    assert all(answered(kernel, program, number) for number in (first, *later))


def test_they_go_cold_together_adapters_first(kernel: Inside, program: Program, pair: Pair) -> None:
    base = kernel.kernel.models.named("base")
    assert base is not None
    base.resting = 2 * HOST_MEMORY
    names = [body["id"] for name, body in kernel.null.calls if name == "load"]
    program.control(pair.base, "sleep")
    assert states(program, pair) == ["cold", "cold"] and held(kernel) == {"base": 0, "tone": 0}
    assert [body["id"] for name, body in kernel.null.calls if name == "unload"] == names[::-1]
    number = program.start(pair.tone, "x")
    assert states(program, pair) == ["awake", "awake"]
    assert kernel.null.last("load")["base"] == base.host_id and answered(kernel, program, number)


def test_a_sleep_that_fails_leaves_both_awake(kernel: Inside, program: Program, pair: Pair) -> None:
    kernel.null.answers["sleep"] = BadState("not now")
    assert isinstance(program.control_error(pair.base, "sleep"), BadState)
    numbers = [program.start(each, "x") for each in pair]
    assert all(answered(kernel, program, number) for number in numbers)


def test_a_wake_that_fails_ends_what_waits_and_the_next_loads_both(
    kernel: Inside, program: Program, pair: Pair
) -> None:
    program.control(pair.base, "sleep")
    kernel.null.answers["wake"] = BadModel("damaged")
    kernel.null.holds.add("wake")
    waiting = [program.start(each, "x") for each in (pair.tone, pair.base)]
    assert isinstance(program.error("unload_model", model=pair.tone, force=True), Busy)
    kernel.null.release("wake")
    assert all(isinstance(program.wait(number).error, BadModel) for number in waiting)
    assert states(program, pair) == ["failed", "failed"] and held(kernel) == {"base": 0, "tone": 0}
    number = program.start(pair.tone, "x")
    assert states(program, pair) == ["awake", "awake"] and answered(kernel, program, number)


def test_they_are_lost_together_while_they_wake(kernel: Inside, program: Program, pair: Pair) -> None:
    program.control(pair.base, "sleep")
    kernel.null.holds.add("wake")
    number = control(program, pair.tone, "wake")
    waiting = program.start(pair.tone, "x")
    kernel.null.dies()
    assert isinstance(program.wait(number).error, PeerGone) and states(program, pair) == ["lost", "lost"]
    kernel.null.starts()
    assert states(program, pair) == ["awake", "awake"] and answered(kernel, program, waiting)


def test_a_base_that_leaves_while_its_adapter_waits_for_room_comes_back(kernel: Inside, program: Program) -> None:
    sized(kernel, BIG)
    base, other = program.load("base"), program.load("other")
    running = program.start(other, "x")
    kernel.advance(STAY)
    sized(kernel, MEMORY * 3 // 10)
    waiting = program.send("load_model", path="/models/tone", base=base)
    assert not program.done(waiting)
    kernel.null.answers["plan"] = lambda body: PlanRows(rows=rows(MEMORY * 3 // 10 if "tone" in str(body) else BIG))
    program.control(base, "sleep")
    assert program.state(base) == "awake" and not program.done(waiting)
    assert answered(kernel, program, running)
    found = program.wait(waiting).value["handle"]
    assert [program.state(each) for each in (base, other, found)] == ["awake", "asleep", "awake"]


def test_an_adapter_that_is_unloaded_leaves_its_base_alone(kernel: Inside, program: Program, pair: Pair) -> None:
    program.call("unload_model", model=pair.tone)
    program.control(pair.base, "sleep")
    number = program.start(pair.base, "x")
    assert answered(kernel, program, number) and held(kernel) == {"base": BIG}


def test_a_base_whose_adapter_is_being_loaded_leaves_after_that(kernel: Inside, program: Program) -> None:
    sized(kernel, BIG)
    base = program.load("base")
    sized(kernel, SMALL)
    kernel.null.holds.add("load")
    coming = program.send("load_model", path="/models/tone", base=base)
    kernel.advance(STAY)
    sized(kernel, MEMORY * 6 // 10)
    waiting = program.send("load_model", path="/models/other")
    assert program.state(base) == "awake" and not program.done(waiting)
    kernel.null.answers["load"] = loaded(SMALL)
    kernel.null.release("load")
    tone = program.wait(coming).value["handle"]
    kernel.null.release("load")
    assert program.wait(waiting).error is None
    assert [program.state(each) for each in (base, tone)] == ["asleep", "asleep"]
