"""From files to examples: what is held out, left out and refused."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from llmos.drivers.engine import kinds
from llmos.drivers.tuning.data.dataset import Dataset, encode, finished
from llmos.syscalls.errors import BadArgument, BadModel
from tiny_kinds import pair_tokenizer
from tiny_models import byte_level
from training_data import base, dataset, jsonl, recipe, source

BASE = base(byte_level(chat=True))
ROWS = [{"text": f"row {n} of many"} for n in range(60)]
HALVED = recipe(eval_fraction=0.5)


def texts(made: Dataset) -> tuple[set[str], set[str]]:
    """What is trained on and what is held out."""
    both = [{BASE.tokenizer.decode(example.tokens[:-1]) for example in side} for side in (made.train, made.held_out)]
    return both[0], both[1]


def rows(numbers: Sequence[int]) -> list[dict[str, str]]:
    return [ROWS[number] for number in numbers]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.integers(0, 59), unique=True, min_size=30), st.integers(20, 29), st.randoms())
def test_a_row_stays_on_its_side(tmp_path: Path, numbers: list[int], first: int, chance: Any) -> None:
    """Whatever comes, goes or changes places."""
    train, held_out = texts(dataset(tmp_path, rows(numbers), HALVED, BASE))
    chance.shuffle(numbers)
    assert (train, held_out) == texts(dataset(tmp_path, rows(numbers), HALVED, BASE))
    some_train, some_held_out = texts(dataset(tmp_path, rows(numbers[:first]), HALVED, BASE))
    assert some_train <= train and some_held_out <= held_out
    assert not train & held_out and len(train | held_out) == len(numbers)


def test_other_columns_do_not_move_a_row(tmp_path: Path) -> None:
    with_ids = [{"id": n, **row} for n, row in enumerate(ROWS)]
    assert texts(dataset(tmp_path, with_ids, HALVED, BASE)) == texts(dataset(tmp_path, ROWS, HALVED, BASE))


def test_equal_rows_are_one_or_on_one_side(tmp_path: Path) -> None:
    made = dataset(tmp_path, ROWS + ROWS[:20], HALVED, BASE)
    assert len(made.train) + len(made.held_out) == 60 and made.facts["duplicates"] == 20
    doubled = dataset(tmp_path, ROWS + ROWS[:20], recipe(eval_fraction=0.5, options={"dedupe": False}), BASE)
    assert len(doubled.train) + len(doubled.held_out) == 80
    assert texts(doubled) == texts(made)


def test_a_file_for_evaluation_is_held_out_and_not_trained_on(tmp_path: Path) -> None:
    files = {"train.jsonl": jsonl(ROWS[:10]), "validation.jsonl": jsonl(ROWS[8:14])}
    train, held_out = texts(finished(encode(source(tmp_path, files), recipe(), BASE)))
    assert train == {row["text"] for row in ROWS[:10]} and held_out == {row["text"] for row in ROWS[10:14]}


def test_the_facts_say_what_was_read(tmp_path: Path) -> None:
    made = dataset(tmp_path, [*ROWS[:3], ROWS[0], {"text": "long " * 90}], recipe(options={"long": "drop"}), BASE)
    facts = made.facts
    names = ("format", "schema", "columns", "rows", "duplicates", "dropped", "labels")
    assert {name: facts[name] for name in names} == {
        "format": "jsonl", "schema": "text", "columns": {"text": "text"}, "rows": 5, "duplicates": 1, "dropped": 1,
        "labels": [],
    }  # fmt: skip
    assert facts["train"]["examples"] == 3 and facts["held_out"] == {} and facts["digest"] == made.digest


def test_the_digest_tells_data_apart(tmp_path: Path) -> None:
    digests = [dataset(tmp_path, each, recipe(), BASE).digest for each in (ROWS, ROWS[1:], ROWS[::-1], ROWS)]
    assert digests[0] == digests[3] and len(set(digests)) == 3


def test_each_row_can_be_waited_for(tmp_path: Path) -> None:
    made = source(tmp_path, {"a.jsonl": jsonl([*ROWS[:5], ROWS[0]])})
    assert list(encode(made, recipe(), BASE)) == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]
    calls: list[None] = []
    finished(encode(made, recipe(), BASE), lambda: calls.append(None))
    assert len(calls) == 11


def test_every_row_is_checked_before_the_first_is_encoded(tmp_path: Path) -> None:
    """A label that only the last row has is known at the first."""
    rows = [{"text": "fox", "label": "b"}, {"text": "dog", "label": "a"}]
    of = base(pair_tokenizer(), kinds.SEQUENCE)
    made = dataset(tmp_path, rows, recipe("classification"), of)
    assert made.labels == ("a", "b") and [example.labels for example in made.train] == [(1,), (0,)]
    steps = encode(source(tmp_path, {"a.jsonl": jsonl([{"text": "long " * 90}, *rows, {"text": 3}])}), recipe(), BASE)
    with pytest.raises(BadArgument, match=r"a\.jsonl:4: 'text' is not a text"):
        finished(steps)


@pytest.mark.parametrize(
    ("given", "fields", "name", "said"),
    [
        ([], {}, "data", "has no rows; it needs rows for causal-lm"),
        (ROWS[:2], {"options": {"long": "drop"}, "max_length": 2}, "data", r"left to train on \(2 rows, .* 2 dropped"),
        (ROWS[:1], {"eval_fraction": 0.001}, "eval_fraction", "no row is held out by eval_fraction 0.001"),
        ([*ROWS, {"txt": "a"}], {}, "data", r"rows\.jsonl:61: the row has no 'text'; did you mean 'txt'"),
        ([*ROWS[:3], {"text": "long " * 90}], {}, "data", r"rows\.jsonl:4: \d+ tokens, at most 64 fit"),
        ([{"text": "a", "label": 9}], {"objective": "classification", "options": {"labels": ["a"]}}, "data",
         r"rows\.jsonl:1: the label is out of range 0 to 0 \(9\)"),
    ],
)  # fmt: skip
def test_data_that_cannot_be_used_are_refused(
    tmp_path: Path, given: Sequence[Any], fields: dict[str, Any], name: str, said: str
) -> None:
    made = recipe(**fields)
    of = base(pair_tokenizer(), kinds.SEQUENCE) if made.objective == "classification" else BASE
    with pytest.raises(BadArgument, match=said) as caught:
        dataset(tmp_path, given, made, of)
    assert caught.value.name == name


def test_a_base_that_cannot_learn_it_is_refused_before_a_row_is_read(tmp_path: Path) -> None:
    unreadable = source(tmp_path, {"a.jsonl": "{"})
    with pytest.raises(BadModel, match="classification needs a sequence classifier"):
        finished(encode(unreadable, recipe("classification"), BASE))
    messages = jsonl([{"messages": [{"role": "assistant", "content": "a"}]}]) + "{"
    with pytest.raises(BadModel, match="no chat template"):
        finished(encode(source(tmp_path, {"a.jsonl": messages}), recipe(), base()))


def test_conversations_are_read(tmp_path: Path) -> None:
    talks = [{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": text}]} for text in "bc"]
    made = dataset(tmp_path, talks, recipe(), BASE)
    assert made.facts["schema"] == "messages" and [example.learned for example in made.train] == [2, 2]


def test_a_folder_of_texts_is_split_into_rows(tmp_path: Path) -> None:
    made = finished(encode(source(tmp_path, {"a.txt": "words " * 200, "b.md": "more"}), recipe(), BASE))
    assert len(made.train) > 2 and max(map(len, made.train)) == BASE.context and made.facts["split"] == 1


def test_rows_that_are_trained_on_are_augmented_and_no_others(tmp_path: Path) -> None:
    rows = [{"text": f"the quick fox over number {n}", "label": n % 2} for n in range(30)]
    of = base(pair_tokenizer(), kinds.SEQUENCE)
    fields: dict[str, Any] = {"eval_fraction": 0.5, "options": {"augment": {"copies": 2, "typos": 0.5}}}
    plain = dataset(tmp_path, rows, recipe("classification", eval_fraction=0.5), of)
    more = dataset(tmp_path, rows, recipe("classification", **fields), of)
    assert more.held_out == plain.held_out and more.digest == plain.digest
    assert [example for example in more.train if example in plain.train] == plain.train
    copies = more.facts["augmented"]
    assert len(more.train) == len(plain.train) + copies and plain.facts["augmented"] == 0
    assert len(plain.train) < copies <= 2 * len(plain.train), "no copies of what is held out"
    again = dataset(tmp_path, rows[::-1], recipe("classification", **fields), of)
    assert sorted(again.train, key=repr) == sorted(more.train, key=repr), "each row has the copies that it has"


def test_a_copy_that_became_too_long_is_no_error(tmp_path: Path) -> None:
    """A row that fits is not refused for what was made of it."""
    of = base(pair_tokenizer(), kinds.SEQUENCE, context=5)
    fields = {"options": {"augment": {"copies": 30, "typos": 0.9}}}
    made = dataset(tmp_path, [{"text": "quick brown jumps", "label": 0}], recipe("classification", **fields), of)
    assert made.train[0].tokens == of.tokenizer("quick brown jumps")["input_ids"]
    assert made.facts["dropped"] > 0 and made.facts["augmented"] == len(made.train) - 1 + made.facts["dropped"]


def test_held_out_rows_know_their_group(tmp_path: Path) -> None:
    """By the column that the recipe names; rows that are learned from, or dropped, have none."""
    rows = [{"text": f"fox {n} " + "long " * (90 * (n == 7)), "label": "ab"[n % 2], "town": n % 3} for n in range(12)]
    files = {"train.jsonl": jsonl(rows[:6]), "validation.jsonl": jsonl(rows[6:])}
    of = base(pair_tokenizer(), kinds.SEQUENCE)
    options = {"group": "town", "long": "drop"}
    made = finished(encode(source(tmp_path, files), recipe("classification", options=options), of))
    assert made.groups == ["0", "2", "0", "1", "2"] and len(made.held_out) == 5
    plain = recipe("classification", options={"long": "drop"})
    assert finished(encode(source(tmp_path, files), plain, of)).groups == []
    with pytest.raises(BadArgument, match=r"rows\.jsonl:1: the row names no group in 'city'.*'town'"):
        dataset(tmp_path, rows, recipe("classification", options={"group": "city"}), of)
