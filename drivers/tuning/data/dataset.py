"""From files to encoded examples, in small steps that whoever shares the thread may come between."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from llmos.syscalls.errors import BadArgument

from ..augment import Augmenter
from ..recipe import Recipe
from . import splits
from .base import Base
from .cleaning import Cleaning, lengths_of
from .encoding import Encoding
from .example import Example
from .labels import Labels, seen_in
from .schema import Record, Schema, detect
from .source import DataSource, Row, refused
from .unlabelled import Pool

Steps = Generator[int, None, "Dataset"]
T = TypeVar("T")


@dataclass(frozen=True)
class Dataset:
    """Encoded rows.

    Attributes:
        train: what is learned.
        held_out: what is only looked at; empty when nothing is held out.
        labels: names of classes, by number.
        digest: of all rows in order, as hexadecimal digits: data that were changed are not those of a checkpoint.
        facts: what was read, left out, split off and how long it is: plain values.
        groups: of which group each held-out example is; empty where the recipe names no column of groups.
        earlier: rows that the base has learned before, by themselves; None where the recipe names none.
        pool: rows without labels; None where the recipe names none.
        tasks: where there are several, the data of each by its name; all else is of them together.
    """

    train: Sequence[Example]
    held_out: Sequence[Example]
    labels: tuple[str, ...]
    digest: str
    facts: Mapping[str, Any]
    groups: Sequence[str] = ()
    earlier: Dataset | None = None
    pool: Pool | None = None
    tasks: Mapping[str, Dataset] = field(default_factory=dict)


@dataclass(frozen=True)
class _Read:
    """A checked row; its place is for errors alone."""

    record: Record
    place: str
    digest: bytes
    held_out: bool
    group: str = ""


def encode(source: DataSource, recipe: Recipe, base: Base) -> Steps:
    """Read, check, clean, split and encode: yields how many rows are behind it, after each row of each pass.

    All rows are checked before the first is encoded.

    Args:
        source: the files.
        recipe: the objective, `eval_fraction`, how to treat what is too long or double, and what copies to make.
        base: the model that is tuned.

    Raises:
        BadArgument: a row is not what the objective needs (with file and line), or nothing is left to train on or to
            evaluate with.
        BadModel: the base cannot learn the objective, or has no chat template for messages.
    """
    base.check(recipe.objective)
    cleaning, digest = Cleaning(recipe.dedupe), hashlib.blake2b(digest_size=16)
    rows: list[_Read] = []
    schema: Schema | None = None
    for number, row in enumerate(source, 1):
        schema = schema or detect(row, recipe)
        if number == 1 and schema.name == "messages":
            base.check_chat()
        record = schema.read(row)
        own = splits.digest_of(record)
        digest.update(own)
        if cleaning.keeps(own):
            apart = row.held_out or splits.held_out(own, recipe.eval_fraction)
            rows.append(_Read(record, row.place, own, apart, _group_of(row, recipe.group)))
        yield number
    if schema is None:
        want = f"rows for {recipe.objective}"
        raise BadArgument(f"{source.path} has no rows; it needs {want}", name="data", got="no rows", want=want)
    labels = Labels(recipe, base, seen_in(read.record for read in rows))
    encoding = Encoding(base, recipe, schema.name, labels, source.texts)
    augmenter = Augmenter(recipe, schema.name)
    sides: dict[bool, list[Example]] = {False: [], True: []}
    groups: list[str] = []
    for number, read in enumerate(rows, 1):
        made = encoding(read.record, read.place)
        sides[read.held_out] += made
        groups += [read.group] * len(made) if recipe.group and read.held_out else []
        for copy in () if read.held_out else augmenter.copies(read.record, read.digest):
            cleaning.counts["augmented"] += 1
            sides[False] += encoding(copy, read.place, spare=True)
        yield cleaning.counts["rows"] + number
    cleaning.counts.update(encoding.counts)
    _check_sides(source.path, recipe, sides, cleaning)
    facts = {
        **source.facts, "schema": schema.name, "columns": dict(schema.columns), **cleaning.counts,
        "train": lengths_of(sides[False]), "held_out": lengths_of(sides[True]), "labels": list(labels.names),
        "digest": digest.hexdigest(),
    }  # fmt: skip
    return Dataset(sides[False], sides[True], labels.names, digest.hexdigest(), facts, groups)


def _group_of(row: Row, column: str) -> str:
    """What a row says in the column of groups. Raises BadArgument where it has none, or no text, number or truth."""
    if not column:
        return ""
    value = row.values.get(column)
    if isinstance(value, str | int):
        return str(value)
    there = ", ".join(map(repr, row.values))
    raise refused(row.place, f"the row names no group in {column!r}", f"it has {there}", value or "")


def finished(steps: Generator[int, None, T], between: Callable[[], None] = lambda: None) -> T:
    """What steps come to, `between` called after each row."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            made: T = end.value
            return made
        between()


def _check_sides(path: str, recipe: Recipe, sides: Mapping[bool, Sequence[Example]], cleaning: Cleaning) -> None:
    counts = ", ".join(f"{count} {name}" for name, count in cleaning.counts.items())
    if not sides[False]:
        want = "more rows, a smaller eval_fraction, or a larger max_length"
        raise BadArgument(f"{path}: nothing is left to train on ({counts}); {want}", name="data", got="0", want=want)
    if recipe.eval_fraction and not sides[True]:
        want = "more rows, a larger eval_fraction, or a file of rows named validation"
        said = f"{path}: no row is held out by eval_fraction {recipe.eval_fraction:g} ({counts}); {want}"
        raise BadArgument(said, name="eval_fraction", got=f"{recipe.eval_fraction:g}", want=want)
