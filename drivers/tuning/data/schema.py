"""What the columns of a row mean, and whether what stands in them is what it has to be."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from llmos.syscalls.errors import BadArgument

from ..recipe import Recipe
from ..words import OBJECTIVES
from .source import Row, refused

Record = Mapping[str, Any]
"""A checked row: the fields of its schema and nothing else."""

ANSWERS = "assistant"
"""The role whose messages are learned."""


@dataclass(frozen=True)
class Field:
    """A field of a schema: the columns that may hold it, the likeliest first, and whether it may be missing."""

    columns: tuple[str, ...]
    kind: str = "text"
    needed: bool = True


_TEXT, _PAIR = Field(("text", "sentence", "content")), Field(("text_pair", "text2", "sentence2"), needed=False)
_ANCHOR = Field(("anchor", "query", "text1", "sentence1"))
_NEAR = Field(("positive", "text2", "sentence2"))

SCHEMAS: Mapping[str, Mapping[str, Field]] = {
    "text": {"text": _TEXT},
    "completion": {
        "prompt": Field(("prompt", "input", "question")),
        "completion": Field(("completion", "response", "output", "answer")),
    },
    "messages": {
        "messages": Field(("messages", "conversation"), "messages"), "tools": Field(("tools",), "tools", needed=False)
    },
    "label": {"text": _TEXT, "text_pair": _PAIR, "label": Field(("label", "class"), "label")},
    "labels": {"text": _TEXT, "text_pair": _PAIR, "labels": Field(("labels", "classes"), "labels")},
    "score": {"text": _TEXT, "text_pair": _PAIR, "score": Field(("score", "label"), "score")},
    "tags": {"tokens": Field(("tokens", "words"), "words"), "tags": Field(("tags", "ner_tags", "labels"), "tags")},
    "answer": {
        "question": Field(("question",)), "context": Field(("context",)),
        "answers": Field(("answers", "answer"), "answers"),
    },
    "triple": {"anchor": _ANCHOR, "positive": _NEAR, "negative": Field(("negative",))},
    "pair": {"anchor": _ANCHOR, "positive": _NEAR},
    "preference": {
        "prompt": Field(("prompt", "question"), "said", needed=False), "chosen": Field(("chosen",), "said"),
        "rejected": Field(("rejected",), "said"),
    },
    "choice": {
        "prompt": Field(("prompt", "question", "context")), "choices": Field(("choices", "options"), "choices"),
        "answer": Field(("answer", "label"), "label"),
    },
}  # fmt: skip


@dataclass(frozen=True)
class Schema:
    """Which columns of a file are which fields; fields of `without` are left alone."""

    name: str
    columns: Mapping[str, str]
    without: frozenset[str] = frozenset()

    def read(self, row: Row) -> Record:
        """The checked fields of a row. Raises BadArgument with file, line, value and what was expected."""
        record: dict[str, Any] = {}
        for name, field in SCHEMAS[self.name].items():
            if name in self.without:
                continue
            value = row.values.get(self.columns.get(name, ""))
            if value is None:
                if field.needed:
                    column = self.columns[name]
                    near = difflib.get_close_matches(column, row.values, n=1)
                    there = ", ".join(map(repr, row.values)) or "no columns"
                    hint = f"did you mean {near[0]!r}?" if near else f"it has {there}"
                    raise refused(row.place, f"the row has no {column!r}", hint)
                continue
            want, check = _KINDS[field.kind]
            if not check(value):
                raise refused(row.place, f"{self.columns[name]!r} is not {want}", f"make it {want}", value)
            record[name] = value
        if "tags" in record and len(record["tokens"]) != len(record["tags"]):
            counts = f"{len(record['tokens'])} tokens, {len(record['tags'])} tags"
            raise refused(row.place, counts, "give each token one tag")
        return record


def detect(row: Row, recipe: Recipe, without: Iterable[str] = ()) -> Schema:
    """The schema of a file by its first row, among those that teach the recipe's objective; fields of `without` are
    not needed, and not read.

    Raises:
        BadArgument: none fits, or the recipe's `columns` name a field or column that is not there.
    """
    left = frozenset(without)
    asked = {field: column for field, column in recipe.columns if field not in left}
    names = OBJECTIVES[recipe.objective]
    known = {field for name in names for field in SCHEMAS[name]}
    for field, column in asked.items():
        if field not in known or column not in row.values:
            there = ", ".join(sorted(known)) if field not in known else ", ".join(map(str, row.values))
            said = f"columns: {field!r} from {column!r}: {recipe.objective} has fields {', '.join(sorted(known))}, "
            said += f"{row.file} has columns {', '.join(map(str, row.values))}"
            raise BadArgument(said, name="columns", got=f"{field}: {column}", want=there)
    for name in names:
        fields = {field: of for field, of in SCHEMAS[name].items() if field not in left}
        found = {field: _column(field, of, row, asked) for field, of in fields.items()}
        if all(found[field] is not None for field, of in fields.items() if of.needed):
            return Schema(name, {field: column for field, column in found.items() if column is not None}, left)
    wants = [
        " and ".join(field for field, of in SCHEMAS[name].items() if of.needed and field not in left) for name in names
    ]
    want = f"{recipe.objective} learns from {', or '.join(wants)}; name the columns in the option columns"
    raise refused(row.place, f"the columns are {', '.join(map(repr, row.values)) or 'none'}", want)


def _column(field: str, of: Field, row: Row, asked: Mapping[str, str]) -> str | None:
    if field in asked:
        return asked[field]
    return next((column for column in (field, *of.columns) if row.values.get(column) is not None), None)


def _text(value: Any) -> bool:
    return _whole(value) and bool(value.strip())


def _whole(value: Any) -> bool:
    """Without halves of characters (lone surrogates), which JSON can say and no tokenizer takes."""
    return isinstance(value, str) and value.encode("utf-8", "replace").decode() == value


def _number(value: Any) -> bool:
    try:
        return not isinstance(value, bool) and math.isfinite(float(value))
    except (TypeError, ValueError):
        return False


def _label(value: Any) -> bool:
    return _text(value) or (isinstance(value, int) and not isinstance(value, bool))


def _list_of(check: Callable[[Any], bool], least: int = 1) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and len(value) >= least and all(map(check, value))


def _message(value: Any) -> bool:
    if not isinstance(value, dict) or not _text(value.get("role")):
        return False
    content = value.get("content")
    parts = isinstance(content, list) and all(
        isinstance(part, dict) and _whole(part.get("text")) for part in content
    )
    return _whole(content) or parts or (content is None and bool(value.get("tool_calls")))


def _chat(value: Any) -> bool:
    return _list_of(_message)(value) and any(message["role"] == ANSWERS for message in value)


def _answers(value: Any) -> bool:
    """A text, or as SQuAD has it."""
    if isinstance(value, dict):
        texts, starts = value.get("text"), value.get("answer_start")
        fit = _list_of(_text)(texts) and _list_of(lambda each: isinstance(each, int) and each >= 0)(starts)
        return fit and len(texts or ()) == len(starts or ())
    return _text(value)


_KINDS: Mapping[str, tuple[str, Callable[[Any], bool]]] = {
    "text": ("a text of whole characters that is not empty", _text),
    "label": ("the name or the number of a class", _label),
    "labels": ("a list of names or numbers of classes", _list_of(_label, 0)),
    "choices": ("a list of two texts or more", _list_of(_text, 2)),
    "score": ("a number", _number),
    "words": ("a list of words", _list_of(lambda each: _whole(each) and bool(each))),
    "tags": ("a list of tags", _list_of(_label)),
    "messages": (f"a list of messages with role and content, one of them of role {ANSWERS}", _chat),
    "said": ("a text or a list of messages with role and content", lambda v: _text(v) or _list_of(_message)(v)),
    "tools": ("a list of maps", _list_of(lambda each: isinstance(each, dict), 0)),
    "answers": ('a text of the context, or {"text": [...], "answer_start": [...]}', _answers),
}
