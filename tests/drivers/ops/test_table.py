"""The op table: which implementation serves a case."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from llmos.drivers.ops.table import OpTable, Spec
from llmos.syscalls.errors import Exists, NotFound, NotSupported


def only(dtype: str) -> Callable[[Spec], tuple[bool, str]]:
    return lambda spec: (spec["dtype"] == dtype, f"only {dtype}")


def table() -> OpTable:
    made = OpTable()
    made.register("add", "reference", lambda a, b: a + b, lambda spec: (True, ""))
    made.register("add", "fast", lambda a, b: b + a, only("float16"))
    return made


def test_the_newest_that_serves_the_case_is_chosen() -> None:
    chosen = table().choose("add", {"dtype": "float16"})
    assert (chosen.implementation.name, chosen.refused) == ("fast", ())
    assert chosen.implementation.call(1, 2) == 3


def test_those_that_refused_are_named_with_their_reasons() -> None:
    chosen = table().choose("add", {"dtype": "float32"})
    assert (chosen.implementation.name, chosen.refused) == ("reference", (("fast", "only float16"),))
    assert table().names("add") == ("fast", "reference")


def test_nothing_that_serves_is_an_error_with_every_reason() -> None:
    made = OpTable()
    made.register("add", "fast", lambda: None, only("float16"))
    with pytest.raises(NotSupported) as error:
        made.choose("add", {"dtype": "float32"})
    assert error.value.why == "fast: only float16"
    with pytest.raises(NotSupported) as error:
        made.choose("multiply", {})
    assert error.value.why == "no implementation is registered"
    assert made.names("multiply") == ()


def test_a_name_is_taken_once() -> None:
    made = table()
    with pytest.raises(Exists, match="fast"):
        made.register("add", "fast", lambda: None, only("float16"))
    assert made.choose("add", {"dtype": "float16"}).implementation.call(1, 2) == 3


def test_one_is_found_by_its_name() -> None:
    assert table().implementation("add", "fast").call(1, 2) == 3
    with pytest.raises(NotFound, match="it has fast, reference"):
        table().implementation("add", "slow")
