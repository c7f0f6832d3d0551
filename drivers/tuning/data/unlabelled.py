"""Rows without labels, as they are and changed."""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Sequence
from dataclasses import dataclass

from llmos.syscalls.errors import BadArgument

from ..augment import Augmenter
from ..recipe import Recipe
from . import splits
from .base import Base
from .encoding import Encoding
from .example import Example
from .labels import Labels
from .schema import Schema, detect
from .source import DataSource

LABELS = {"label": "label", "tags": "tags"}
"""For each schema that may stand without labels, the field that has them."""

Steps = Generator[int, None, "Pool"]


@dataclass(frozen=True)
class Pool:
    """Rows without labels.

    Attributes:
        given: each as it is; its labels mean nothing, and say where a label would stand.
        changed: copies of each, with as many labels; the row itself where it has none.
        places: file and line of each.
        digest: of all rows in order.
    """

    given: Sequence[Example]
    changed: Sequence[Sequence[Example]]
    places: Sequence[str]
    digest: str


def encode_pool(source: DataSource, recipe: Recipe, base: Base, names: Sequence[str]) -> Steps:
    """Read, check and encode: yields how many rows are behind it. Rows too long are dropped; of equal ones one stays.

    Args:
        source: the files.
        recipe: the objective, and what copies to make.
        base: the model that is tuned.
        names: of the classes of rows that have labels.

    Raises:
        BadArgument: a row is not what the objective reads (with file and line), or there is none.
    """
    digest, seen = hashlib.blake2b(digest_size=16), set[bytes]()
    schema: Schema | None = None
    given: list[Example] = []
    changed: list[list[Example]] = []
    places: list[str] = []
    for number, row in enumerate(source, 1):
        if schema is None:
            schema = detect(row, recipe, without=LABELS.values())
            encoding = Encoding(base, recipe, schema.name, Labels(recipe, base, names))
            augmenter = Augmenter(recipe, schema.name)
        record = dict(schema.read(row))
        own = splits.digest_of(record)
        digest.update(own)
        record[LABELS[schema.name]] = [0] * len(record["tokens"]) if schema.name == "tags" else 0
        made = () if own in seen else encoding(record, row.place, spare=True)
        seen.add(own)
        for example in made:
            copies = [each for copy in augmenter.copies(record, own) for each in encoding(copy, row.place, spare=True)]
            given.append(example)
            changed.append([each for each in copies if each.learned == example.learned] or [example])
            places.append(row.place)
        yield number
    if not given:
        want = "more rows, or a larger max_length"
        raise BadArgument(f"{source.path}: no row is left; it needs {want}", name="files", got="no rows", want=want)
    return Pool(given, changed, places, digest.hexdigest())
