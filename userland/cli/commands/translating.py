"""`back-translate`: more rows of training data, said in other words by models that serve.

Each text goes through the models one after another, into another language and back say (Sennrich et al. 2016); what
comes out in other words is a further row with the same labels. Rows that are held out are kept apart and have no
copies, so that nothing that is judged by has been trained on in other words.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TextIO

from llmos.syscalls.errors import BadArgument, Exists, NotFound
from llmos.syscalls.wire import Progress
from llmos.userland.objects import Model

from ..cli import Cli

from .inference import open_model
from .models import progress_bar

FIELDS = ("text", "sentence", "content", "question", "prompt", "anchor")
"""Columns that are said in other words where nothing else is asked for: the first that a row has."""
TRAIN, HELD_OUT = "train.jsonl", "validation.jsonl"
"""Files of the folder that is made; `tune` holds out the rows of the second by its name."""

Row = dict[str, Any]


def back_translate(cli: Cli, values: Namespace) -> int:
    """Nothing is written where it does not come to its end."""
    rows, out = list(_rows(Path(values.data).expanduser())), Path(values.out).expanduser()
    if out.exists():
        raise Exists(f"{out} exists already; name another folder")
    if not values.through:
        want = "--through MODEL, twice say: into another language, and back"
        raise BadArgument(f"back-translate needs the models that texts go through: {want}", name="through", want=want)
    apart = [_held_out(row, values.eval_fraction or 0.0) for row in rows]
    trained = [row for row, held in zip(rows, apart, strict=True) if not held]
    made: list[Row] = []
    with ExitStack() as stack:
        models = [stack.enter_context(open_model(cli, name)) for name in values.through]
        show = stack.enter_context(progress_bar(cli, "translating"))
        for number, row in enumerate(trained, 1):
            made += [row, *_copies(models, row, values)]
            if show is not None:
                show(Progress(done=number, total=len(trained), unit="rows"))
    _write(out, {TRAIN: made, HELD_OUT: [row for row, held in zip(rows, apart, strict=True) if held]})
    told = {"rows": len(rows), "copies": len(made) - len(trained), "held_out": sum(apart), "path": str(out)}
    if not cli.out.result(told):
        held = f", {told['held_out']} rows held out" if told["held_out"] else ""
        cli.out.line(f"{out}: {len(trained)} rows and {told['copies']} in other words{held}")
    return 0


def _copies(models: Sequence[Model], row: Row, values: Namespace) -> Iterator[Row]:
    """The row in other words, where they are others."""
    fields = values.field or [next((name for name in FIELDS if name in row), "")]
    said = {name: _through(models, str(row[name]), values.task or "translation") for name in fields if row.get(name)}
    if not said:
        want = f"one of {', '.join(FIELDS)}, or --field NAME"
        there = ", ".join(map(repr, row))
        raise BadArgument(f"a row has {there}, and no text to translate: {want}", name="field", got=there, want=want)
    if any(text and _plain(text) != _plain(str(row[name])) for name, text in said.items()):
        yield {**row, **{name: text for name, text in said.items() if text}}


def _through(models: Sequence[Model], text: str, task: str) -> str:
    for model in models:
        text = model.infer(text, task=task, work_class="batch").text.strip()
    return text


def _plain(text: str) -> str:
    """What makes no other words."""
    return " ".join(text.lower().split())


def _held_out(row: Mapping[str, Any], fraction: float) -> bool:
    """By what the row says, so that it stays on its side whatever others come or go."""
    said = json.dumps(row, sort_keys=True, ensure_ascii=False, default=str)
    digest = hashlib.blake2b(said.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest) < fraction * 2**64


def _rows(path: Path) -> Iterator[Row]:
    """Raises NotFound, BadArgument."""
    readers: Mapping[str, Callable[[TextIO], Iterable[Row]]] = {
        ".jsonl": _json_lines, ".ndjson": _json_lines, ".csv": csv.DictReader,
    }  # fmt: skip
    if path.suffix.lower() not in readers:
        want = ", ".join(readers)
        raise BadArgument(f"{path} is none of {want}", name="data", got=path.suffix, want=want)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield from map(dict, readers[path.suffix.lower()](file))
    except OSError as error:
        raise NotFound(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise BadArgument(f"{path} is no UTF-8: {error.reason}", name="data", got=str(path), want="UTF-8") from None


def _json_lines(file: TextIO) -> Iterator[Row]:
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            row, why = None, str(error)
        else:
            why = "a row is a JSON object"
        if not isinstance(row, dict):
            place = f"{file.name}:{number}"
            raise BadArgument(f"{place}: {why}", name="data", got=place, want="a JSON object in each line")
        yield row


def _write(out: Path, files: Mapping[str, Sequence[Row]]) -> None:
    """Make the folder, whole or not at all."""
    part = out.with_name(f".{out.name}.part-{os.getpid()}")
    part.mkdir(parents=True)
    for name, rows in files.items():
        if rows:
            lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            (part / name).write_text("".join(lines), encoding="utf-8")
    part.replace(out)
