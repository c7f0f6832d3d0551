"""Small facts about loading."""

from __future__ import annotations

import pytest

from llmos.kernel.recipes import NAME_LENGTH, held, model_name, owned, predicted, recipe
from llmos.syscalls.errors import BadArgument
from llmos.syscalls.types import LedgerRow, LoadOptions, Quant


def row(what: str = "weights", **sizes: int) -> LedgerRow:
    return LedgerRow(device="?", what=what, owner="?", **sizes)


def test_a_row_gets_its_device_and_owner() -> None:
    mine = owned(row(predicted=1, allocator=2, driver=3, ledger=9), "null0", "w-1")
    assert (mine.device, mine.owner, mine.what) == ("null0", "w-1", "weights")
    assert (mine.predicted, mine.allocator, mine.driver, mine.ledger) == (1, 2, 3, 0)


def test_what_is_held_is_what_was_measured() -> None:
    assert held([row(predicted=9, allocator=2, driver=3), row(driver=1), row("kv", allocator=5)]) == {
        "weights": 4, "kv": 5
    }  # fmt: skip


def test_what_is_planned_is_what_was_predicted() -> None:
    assert predicted([row(predicted=9, driver=3), row(predicted=1), row("kv", predicted=5)]) == {"weights": 10, "kv": 5}


@pytest.mark.parametrize(
    "other",
    [
        {"dtype": "float32"}, {"kv_dtype": "float16"}, {"max_context": 7}, {"quant": Quant(width=4)}, {"draft": "/m"},
        {"rung": "F"},
    ],
)  # fmt: skip
def test_what_makes_models_different(other: dict[str, object]) -> None:
    assert recipe(LoadOptions(**other)) != recipe(LoadOptions())


@pytest.mark.parametrize("same", [{"name": "x"}, {"keep_alive": 5.0}, {"pin": True}, {"replace": True}])
def test_what_does_not(same: dict[str, object]) -> None:
    assert recipe(LoadOptions(**same)) == recipe(LoadOptions())


@pytest.mark.parametrize(
    ("path", "name"),
    [("/models/a", "a"), ("/models/org/a@2", "a"), ("/models/a/", "a"), ("/", "model"), ("/data/my model", "my-model")],
)
def test_a_model_is_called_like_its_path(path: str, name: str) -> None:
    assert model_name("", path) == name


@pytest.mark.parametrize("name", ["a b", "a/b", "a@2", "a\n", " ", "..", "x" * (NAME_LENGTH + 1)])
def test_a_name_is_one_word_and_no_path(name: str) -> None:
    with pytest.raises(BadArgument, match="one word of at most 128") as error:
        model_name(name, "/models/a")
    assert error.value.name == "name" and error.value.got == name[:80]


@pytest.mark.parametrize("name", ["a", "größe", "qwen2.5-7b_Q4+lora:1", "x" * NAME_LENGTH])
def test_names_that_can_be_typed_are_taken(name: str) -> None:
    assert model_name(name, "/models/a") == name
