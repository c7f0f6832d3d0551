"""The small tools of the checks."""

from __future__ import annotations

from typing import Any

import pytest
from llmos.drivers.conformance.verdicts import Absent, Broken, expect, expect_error, expect_sendable, optional
from llmos.syscalls.errors import BadState, NotFound, NotSupported
from llmos.syscalls.types import Chunk


def test_a_condition_that_does_not_hold_is_broken() -> None:
    expect(True, "x")
    with pytest.raises(Broken, match="so it is"):
        expect(False, "so it is")


def raising(error: Exception) -> None:
    raise error


def test_an_error_must_come_and_be_of_the_right_kind() -> None:
    assert str(expect_error("x", lambda: raising(NotFound("gone")), BadState, NotFound)) == "gone"
    with pytest.raises(Broken, match="x: expected NotFound, got BadState: asleep"):
        expect_error("x", lambda: raising(BadState("asleep")), NotFound)
    with pytest.raises(Broken, match="x: expected NotFound or BadState, but it was accepted"):
        expect_error("x", lambda: None, NotFound, BadState)
    with pytest.raises(ValueError, match="a bug"):
        expect_error("x", lambda: raising(ValueError("a bug")), NotFound)


def test_what_is_not_supported_is_absent_where_it_is_optional() -> None:
    with pytest.raises(Absent, match="sleep: no"), optional("sleep"):
        raise NotSupported("no")
    with pytest.raises(NotFound), optional("sleep"):
        raise NotFound("other")


@pytest.mark.parametrize("wrong", [{"tokens": [object()]}, {"text": 5}, {"tokens": ["5"]}, {"text": b"x"}])
def test_only_plain_values_of_the_right_type_can_be_sent(wrong: dict[str, Any]) -> None:
    expect_sendable("a chunk", Chunk(text="x", tokens=[1]))
    with pytest.raises(Broken, match="a chunk holds something that cannot be sent"):
        expect_sendable("a chunk", Chunk(**wrong))
