"""Shares and budgets reach the hosts when it changes who has work."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from scripted import Inside, Program, inside

from llmos.syscalls.errors import NotSupported


@pytest.fixture
def kernel(folder: Path) -> Iterator[Inside]:
    with inside(folder, drivers="null0,cpu0,models") as kernel:
        yield kernel


def told(kernel: Inside, device: str = "null0") -> list[tuple[str, object]]:
    """What a host was told of shares and budgets, in order."""
    names = {"set_shares": "shares", "set_budget": "budget"}
    return [(name, body[names[name]]) for name, body in kernel.hosts[device].calls if name in names]


def end(kernel: Inside, program: Program, *numbers: int, device: str = "null0") -> None:
    for number in numbers:
        kernel.hosts[device].release("submit")
        assert program.wait(number).error is None


def weights(kernel: Inside, name: str) -> str:
    model = kernel.kernel.models.named(name)
    assert model is not None
    return model.host_id


def test_one_model_of_one_class_needs_nothing(kernel: Inside, program: Program) -> None:
    model = program.load("tiny")
    numbers = [program.start(model, "x") for _ in range(2)]
    kernel.advance(0.1)
    end(kernel, program, *numbers)
    kernel.advance(0.1)
    assert told(kernel) == []


def test_two_models_share_until_something_changes(kernel: Inside, program: Program) -> None:
    one, other = program.load("one"), program.load("other")
    numbers = [program.start(one, "x"), program.start(other, "x"), program.start(other, "y")]
    assert told(kernel) == []
    kernel.advance(0.05)
    shares = {weights(kernel, "one"): 0.5, weights(kernel, "other"): 0.5}
    assert told(kernel) == [("set_shares", shares)]
    reasons = kernel.kernel.decisions.of("null0")
    assert reasons[-1].code == "device.shares" and reasons[-1].change
    kernel.null.release("submit")
    kernel.advance(0.05)
    numbers.append(program.start(one, "z"))
    kernel.advance(0.05)
    assert told(kernel) == [("set_shares", shares)], "nothing new is not said again"
    end(kernel, program, *numbers[1:])


def test_a_lower_class_has_its_minimum_while_both_have_work(kernel: Inside, program: Program) -> None:
    model = program.load("tiny")
    numbers = [program.start(model, "x"), program.start(model, "y", call_work_class="batch")]
    kernel.advance(0.05)
    budget = {"interactive": 1.0, "batch": 0.1, "background": 0.05, "device": 1.0}
    assert told(kernel) == [("set_budget", budget)]
    end(kernel, program, *numbers)
    kernel.advance(0.05)
    assert told(kernel) == [("set_budget", budget)]


def test_hosts_of_one_unit_share_it(kernel: Inside, program: Program) -> None:
    for host in (kernel.hosts["null0"], kernel.hosts["cpu0"]):
        assert host.driver.facts is not None
        host.driver.facts = msgspec.structs.replace(host.driver.facts, unit="gpu")
    one, other = program.load("one"), program.load("other", "cpu0")
    first, second = program.start(one, "x"), program.start(other, "x", call_work_class="batch")
    kernel.advance(0.05)
    assert [told(kernel, name)[-1][1]["device"] for name in ("null0", "cpu0")] == [0.9, 0.1]  # type: ignore[index]
    end(kernel, program, first)
    kernel.advance(0.05)
    assert told(kernel, "cpu0")[-1][1]["device"] == 1.0  # type: ignore[index]
    end(kernel, program, second, device="cpu0")


def test_a_host_that_is_new_is_told_again_and_one_that_cannot_is_left_alone(kernel: Inside, program: Program) -> None:
    kernel.null.answers["set_budget"] = NotSupported("no", why="old")
    model = program.load("tiny")
    numbers = [program.start(model, "x"), program.start(model, "y", call_work_class="batch")]
    kernel.advance(0.05)
    kernel.null.dies()
    kernel.advance(0.05)
    kernel.null.starts()
    kernel.advance(0.05)
    more = program.start(model, "z", call_work_class="background")
    kernel.advance(0.05)
    assert [name for name, _ in told(kernel)] == ["set_budget", "set_budget"]
    end(kernel, program, *numbers, more)


def test_what_ended_meanwhile_is_not_divided(kernel: Inside, program: Program) -> None:
    model = program.load("tiny")
    number = program.start(model, "x")
    kernel.null.driver.link, link = None, kernel.null.driver.link
    program.start(model, "y", call_work_class="batch")
    kernel.advance(0.05)
    assert told(kernel) == []
    kernel.null.driver.link = link
    program.cancel(number)


def test_a_host_knows_what_a_job_may_take_before_it_gets_one(kernel: Inside, program: Program) -> None:
    sharing, limits = kernel.kernel.sharing, kernel.kernel.config.limits
    budget = {"interactive": 1.0, "batch": 0.1, "background": limits.background_share, "device": 1.0}
    alone = {**budget, "slice_s": limits.tune_slice_s}
    for _ in range(2):
        sharing.tuned("null0")
    assert told(kernel) == [("set_budget", alone)], "nothing new is not said again"
    model = program.load("tiny")
    numbers = [program.start(model, "x"), program.start(model, "y", call_work_class="batch")]
    kernel.advance(0.05)
    assert told(kernel) == [("set_budget", alone)], "it holds beside requests of several classes too"
    end(kernel, program, *numbers)
    link, kernel.null.driver.link = kernel.null.driver.link, None
    sharing.tuned("null0")
    kernel.null.driver.link = link
    assert len(told(kernel)) == 1
