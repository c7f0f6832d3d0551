"""All data of a job: what is to be learned, and what other files of the folder are for."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace

from ...contract import SourceFile
from ..options.earlier import Earlier
from ..recipe import Recipe
from . import replay
from .base import Base
from .dataset import Dataset, encode, finished
from .example import Example
from .parts import MAIN, parted
from .source import DataSource
from .splits import digest_of

EARLIER = "earlier"


def read(
    path: str, files: Sequence[SourceFile], recipe: Recipe, base: Base, between: Callable[[], None] = lambda: None
) -> Dataset:
    """Read, check and encode everything.

    Args:
        path: of the data, for errors.
        files: of the data.
        recipe: which says what they are for.
        base: the model that is tuned.
        between: called after each row.

    Raises:
        BadArgument: a row or a name of a file is wrong.
        BadModel: the base cannot learn the objective.
    """
    named = {} if recipe.earlier is None else {EARLIER: recipe.earlier.files}
    parts = parted(path, files, named)

    def part(name: str, of: Recipe) -> Dataset:
        place = f"{path} ({name})" if name != MAIN else path
        return finished(encode(DataSource(place, parts[name]), of, base), between)

    data = part(MAIN, recipe)
    if recipe.earlier is not None:
        plain = replace(recipe, labels=data.labels or recipe.labels, augment=None, group="")
        data = _with_earlier(data, part(EARLIER, plain), recipe.earlier, recipe.seed)
    return data


def _with_earlier(data: Dataset, old: Dataset, asked: Earlier, seed: int) -> Dataset:
    """Old rows stand among the new ones, and by themselves."""
    if asked.keep:
        digests = [_digest(example) for example in old.train]
        kept = replay.kept(digests, asked.keep, seed)
        old = replace(old, train=[one for one, digest in zip(old.train, digests, strict=True) if digest in kept])
    train = replay.mixed(data.train, old.train, asked.share, seed)
    told = {name: old.facts[name] for name in ("format", "files", "schema", "held_out", "digest")}
    told |= {"kept": len(old.train), "replayed": len(train) - len(data.train)}
    return replace(data, train=train, earlier=old, digest=_joined(data, old), facts={**data.facts, EARLIER: told})


def _digest(example: Example) -> bytes:
    return digest_of({"tokens": list(example.tokens), "labels": list(example.labels)})


def _joined(*those: Dataset) -> str:
    """One digest of several data sets."""
    return hashlib.blake2b("".join(each.digest for each in those).encode(), digest_size=16).hexdigest()
