"""Small facts about loading that need no kernel: whose rows, how many bytes, what makes two loads the same."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from llmos.syscalls.driver import Located
from llmos.syscalls.errors import BadArgument
from llmos.syscalls.types import LedgerRow, LoadOptions
from llmos.syscalls.wire import Progress

from .objects import ModelObject
from .requests import Request

NAME_LENGTH = 128
_NO_NAME = re.compile(r"[^\w.+:-]+")
_LETTER = re.compile(r"\w")


def watch(model: ModelObject, request: Request | None) -> None:
    """From now on a request is told how far the model has come."""
    if request is not None and request not in model.watchers:
        model.watchers.append(request)


def tell(model: ModelObject, progress: Progress) -> None:
    for request in model.watchers:
        request.progress(progress.done, progress.total, progress.unit, progress.stage)


def owned(row: LedgerRow, device: str, owner: str) -> LedgerRow:
    return LedgerRow(
        device=device, what=row.what, owner=owner, predicted=row.predicted, allocator=row.allocator, driver=row.driver
    )


def predicted(rows: Sequence[LedgerRow]) -> dict[str, int]:
    """Planned bytes by use."""
    sizes: dict[str, int] = {}
    for row in rows:
        sizes[row.what] = sizes.get(row.what, 0) + row.predicted
    return sizes


def held(rows: Sequence[LedgerRow]) -> dict[str, int]:
    """Bytes by use that are really held, as measured: what a sleeping model keeps of its device."""
    sizes: dict[str, int] = {}
    for row in rows:
        sizes[row.what] = sizes.get(row.what, 0) + max(row.allocator, row.driver)
    return sizes


def recipe(options: LoadOptions) -> tuple[object, ...]:
    """What makes two loads the same model: everything but its name and how long to keep it."""
    memory = (options.dtype, options.kv_dtype, options.max_context, options.quant)
    return (*memory, options.draft, options.rung, options.prefix_cache)


def what(device: str, located: Located, options: LoadOptions) -> tuple[object, ...]:
    """What is loaded, where and how: what is learned of its bytes holds for the next load of the same."""
    return (device, located.path, located.version, repr(recipe(options)))


def extra_slots(model: ModelObject) -> int:
    """How many requests of a higher class a device takes beyond its slots: as many again where it can park work."""
    facts = model.driver.facts
    assert model.loaded is not None
    return model.loaded.slots if facts is not None and facts.features.get("parks") else 0


def paths(located: Located) -> list[str]:
    """The files of a model and of its draft model."""
    return [file.path for each in (located, located.draft) if each is not None for file in each.files]


def names_of(models: Iterable[ModelObject]) -> str:
    return ", ".join(model.name for model in models) or "none"


def model_name(asked: str, path: str) -> str:
    """The name of a loaded model: what was asked for, else the last part of its path as one word.

    Raises:
        BadArgument: it could not be typed as one word, or would look like a path.
    """
    if not asked:
        word = _NO_NAME.sub("-", path.rstrip("/").rpartition("/")[2].partition("@")[0])
        return word if _LETTER.search(word) else "model"
    if len(asked) > NAME_LENGTH or _NO_NAME.search(asked) or not _LETTER.search(asked):
        want = f"one word of at most {NAME_LENGTH} letters, digits and _ . + : -"
        got = asked[:80]
        raise BadArgument(f"a model cannot be called {got!r}; use {want}", name="name", got=got, want=want)
    return asked
