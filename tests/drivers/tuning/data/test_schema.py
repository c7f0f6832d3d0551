"""What columns mean is found out from the first row; every row is then checked against it."""

from __future__ import annotations

from typing import Any

import pytest
from llmos.drivers.tuning.data.schema import SCHEMAS, Schema, detect
from llmos.drivers.tuning.words import OBJECTIVES
from llmos.syscalls.errors import BadArgument
from training_data import recipe, row

CHAT = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
FOUND: tuple[tuple[str, dict[str, Any], str, dict[str, str]], ...] = (
    ("causal-lm", {"text": "a"}, "text", {"text": "text"}),
    ("causal-lm", {"content": "a", "id": 3}, "text", {"text": "content"}),
    ("causal-lm", {"prompt": "a", "response": "b", "text": "ab"}, "completion",
     {"prompt": "prompt", "completion": "response"}),
    ("causal-lm", {"conversation": CHAT, "prompt": "a", "completion": "b"}, "messages", {"messages": "conversation"}),
    ("seq2seq", {"input": "a", "output": "b"}, "completion", {"prompt": "input", "completion": "output"}),
    ("classification", {"sentence": "a", "class": 1}, "label", {"text": "sentence", "label": "class"}),
    ("classification", {"text": "a", "text_pair": "b", "label": 1}, "label",
     {"text": "text", "text_pair": "text_pair", "label": "label"}),
    ("multi-label", {"text": "a", "labels": []}, "labels", {"text": "text", "labels": "labels"}),
    ("regression", {"text": "a", "label": "0.5"}, "score", {"text": "text", "score": "label"}),
    ("token-classification", {"tokens": ["a"], "ner_tags": [0]}, "tags", {"tokens": "tokens", "tags": "ner_tags"}),
    ("question-answering", {"question": "a", "context": "b", "answer": "b"}, "answer",
     {"question": "question", "context": "context", "answers": "answer"}),
    ("embedding", {"query": "a", "positive": "b", "negative": "c"}, "triple",
     {"anchor": "query", "positive": "positive", "negative": "negative"}),
    ("embedding", {"text1": "a", "text2": "b"}, "pair", {"anchor": "text1", "positive": "text2"}),
    ("preference", {"chosen": "a", "rejected": CHAT}, "preference", {"chosen": "chosen", "rejected": "rejected"}),
    ("multiple-choice", {"question": "a", "options": ["b", "c"], "label": 1}, "choice",
     {"prompt": "question", "choices": "options", "answer": "label"}),
)  # fmt: skip


@pytest.mark.parametrize(("objective", "values", "name", "columns"), FOUND)
def test_the_schema_is_found(objective: str, values: dict[str, Any], name: str, columns: dict[str, str]) -> None:
    schema = detect(row(values), recipe(objective))
    assert (schema.name, dict(schema.columns)) == (name, columns)
    assert schema.read(row(values)) == {field: values[column] for field, column in columns.items()}


def test_every_schema_of_an_objective_is_known_and_tried() -> None:
    assert {name for names in OBJECTIVES.values() for name in names} == set(SCHEMAS) == {each[2] for each in FOUND}


def test_a_recipe_may_name_the_columns() -> None:
    made = recipe(options={"columns": {"text": "body"}})
    assert detect(row({"text": "title", "body": "long"}), made).columns == {"text": "body"}


@pytest.mark.parametrize(
    ("objective", "values", "columns", "said"),
    [
        ("causal-lm", {"body": "a", "n": 1}, {}, r"rows.jsonl:1: the columns are 'body', 'n'; causal-lm learns from "
         r"messages, or prompt and completion, or text; name the columns in the option columns"),
        ("causal-lm", {}, {}, "the columns are none"),
        ("classification", {"text": "a", "label": None}, {}, "learns from text and label"),
        ("causal-lm", {"text": "a"}, {"text": "body"}, "'text' from 'body': .*rows.jsonl has columns text"),
        ("causal-lm", {"text": "a"}, {"label": "text"}, "causal-lm has fields completion, messages, prompt, text"),
    ],
)  # fmt: skip
def test_rows_that_teach_nothing_are_refused(
    objective: str, values: dict[str, Any], columns: dict[str, str], said: str
) -> None:
    with pytest.raises(BadArgument, match=said):
        detect(row(values), recipe(objective, options={"columns": columns}))


@pytest.mark.parametrize(
    ("name", "values", "said"),
    [
        ("text", {}, r"the row has no 'text'; it has no columns"),
        ("text", {"texts": "a"}, r"the row has no 'text'; did you mean 'texts'\?"),
        ("text", {"n": 1}, r"the row has no 'text'; it has 'n'"),
        ("text", {"text": 3}, r"'text' is not a text of whole characters that is not empty \(3\)"),
        ("text", {"text": " \n"}, "not empty"),
        ("text", {"text": "half \ud83d of a character"}, "whole characters"),
        ("label", {"text": "a", "label": 0.5}, "the name or the number of a class"),
        ("label", {"text": "a", "label": True}, "the name or the number of a class"),
        ("label", {"text": "a", "label": 1, "text_pair": ""}, "'text_pair' is not"),
        ("labels", {"text": "a", "labels": "b"}, "a list of names or numbers"),
        ("score", {"text": "a", "score": "much"}, "'score' is not a number"),
        ("score", {"text": "a", "score": "nan"}, "'score' is not a number"),
        ("tags", {"tokens": ["a", "b"], "tags": ["O"]}, "2 tokens, 1 tags; give each token one tag"),
        ("tags", {"tokens": ["a", ""], "tags": ["O", "O"]}, "a list of words"),
        ("tags", {"tokens": [], "tags": []}, "a list of words"),
        ("messages", {"messages": CHAT[:1]}, "one of them of role assistant"),
        ("messages", {"messages": [{"role": "assistant"}]}, "a list of messages"),
        ("messages", {"messages": [{"content": "a"}]}, "a list of messages"),
        ("messages", {"messages": ["assistant"]}, "a list of messages"),
        ("messages", {"messages": [{"role": "assistant", "content": [{"type": "image"}]}]}, "a list of messages"),
        ("messages", {"messages": CHAT, "tools": [1]}, "a list of maps"),
        ("answer", {"question": "a", "context": "b", "answers": {"text": [], "answer_start": []}}, "a text of the"),
        ("answer", {"question": "a", "context": "b", "answers": {"text": ["b"], "answer_start": [-1]}}, "a text of"),
        ("answer", {"question": "a", "context": "b", "answers": {"text": ["b"], "answer_start": [0, 1]}}, "a text of"),
        ("preference", {"chosen": "a", "rejected": []}, "a text or a list of messages"),
        ("choice", {"prompt": "a", "choices": ["b"], "answer": 0}, "a list of two texts or more"),
    ],
)
def test_a_row_that_does_not_fit_is_told_with_its_place(name: str, values: dict[str, Any], said: str) -> None:
    schema = Schema(name, {field: field for field in SCHEMAS[name]})
    with pytest.raises(BadArgument, match=said) as caught:
        schema.read(row(values, line=7))
    assert caught.value.got == "rows.jsonl:7" and str(caught.value).startswith("rows.jsonl:7: ")


@pytest.mark.parametrize(
    "message",
    [{"role": "assistant", "content": [{"type": "text", "text": "a"}]}, {"role": "assistant", "content": ""},
     {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f"}}]}],
)  # fmt: skip
def test_messages_may_be_parts_or_calls(message: dict[str, Any]) -> None:
    made = Schema("messages", {"messages": "messages", "tools": "tools"})
    record = made.read(row({"messages": [message], "tools": [{"type": "function"}], "other": 1}))
    assert record == {"messages": [message], "tools": [{"type": "function"}]}


def test_an_optional_column_may_be_missing_in_some_rows() -> None:
    schema = detect(row({"text": "a", "text_pair": "b", "label": 1}), recipe("classification"))
    assert schema.read(row({"text": "a", "text_pair": None, "label": 1})) == {"text": "a", "label": 1}
