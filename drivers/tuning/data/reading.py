"""All data of a job: what is to be learned, and what other files of the folder are for."""

from __future__ import annotations

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
from .splits import digest_of, joined
from .tasks import read_tasks
from .unlabelled import encode_pool

EARLIER, UNLABELLED = "earlier", "unlabelled"


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
    if recipe.tasks:
        return read_tasks(path, files, recipe, base, between)
    asked = {EARLIER: recipe.earlier, UNLABELLED: recipe.unlabelled}
    parts = parted(path, files, {name: each.files for name, each in asked.items() if each is not None})

    def source(name: str) -> DataSource:
        return DataSource(f"{path} ({name})" if name != MAIN else path, parts[name])

    data = finished(encode(source(MAIN), recipe, base), between)
    known = replace(recipe, labels=data.labels or recipe.labels)
    if recipe.earlier is not None:
        plain = replace(known, augment=None, group="")
        old = finished(encode(source(EARLIER), plain, base), between)
        data = _with_earlier(data, old, recipe.earlier, recipe.seed)
    if recipe.unlabelled is not None:
        pool = finished(encode_pool(source(UNLABELLED), known, base, data.labels), between)
        told = {UNLABELLED: {"rows": len(pool.given), "digest": pool.digest}}
        data = replace(data, pool=pool, digest=joined(data.digest, pool.digest), facts={**data.facts, **told})
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
    digest = joined(data.digest, old.digest)
    return replace(data, train=train, earlier=old, digest=digest, facts={**data.facts, EARLIER: told})


def _digest(example: Example) -> bytes:
    return digest_of({"tokens": list(example.tokens), "labels": list(example.labels)})
