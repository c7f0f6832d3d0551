"""Inference calls."""

from __future__ import annotations

from typing import Any

import pytest
from llmos.syscalls import calls
from llmos.syscalls.errors import BadArgument, BadModel
from llmos.syscalls.spec import SYSCALLS, check

assert calls.__all__


def made(name: str, **arguments: Any) -> Any:
    return check(SYSCALLS[name], arguments)


def refused(name: str, argument: str, **arguments: Any) -> None:
    with pytest.raises(BadArgument) as raised:
        made(name, **arguments)
    assert raised.value.name == argument


TEXT = {"type": "text", "text": "hi"}


@pytest.mark.parametrize("name", ["infer", "infer_stream"])
def test_an_input_is_enough(name: str) -> None:
    call = made(name, model=1, input=TEXT)
    assert (call.task, call.context, call.sampling.temperature) == ("auto", None, 0.0)


def test_the_two_calls_take_the_same_arguments_but_for_credit() -> None:
    plain, stream = SYSCALLS["infer"].fields, SYSCALLS["infer_stream"].fields
    assert stream[:-1] == plain
    assert stream[-1].name == "credit"
    assert SYSCALLS["infer"].errors == SYSCALLS["infer_stream"].errors == SYSCALLS["embed"].errors


@pytest.mark.parametrize("name", ["infer", "infer_stream", "embed", "open_context"])
def test_a_model_that_has_to_be_woken_may_be_damaged(name: str) -> None:
    assert BadModel in SYSCALLS[name].errors


@pytest.mark.parametrize("credit", [0, -1, 100_001, 1.5])
def test_credit_is_positive_and_bounded(credit: float) -> None:
    refused("infer_stream", "credit", model=1, input=TEXT, credit=credit)


def test_a_context_must_be_writable_and_a_parent_readable() -> None:
    assert [f.rights for f in SYSCALLS["infer"].handles] == [("run",), ("write",)]
    assert [f.rights for f in SYSCALLS["open_context"].handles] == [("create",), ("read",)]


def test_embedding_options_are_checked() -> None:
    refused("embed", "options.max_tokens", model=1, input=TEXT, options={"max_tokens": 0})
    refused("open_context", "max_tokens", model=1, max_tokens=-1)
