"""Loading a draft model beside the model that it is to guess for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmos.syscalls.errors import BadArgument, NotSupported

from ..contract import LoadSettings, ModelSource, ProgressSink
from ..ops.table import OpTable
from . import attention, checkpoint, ladder, loader
from .blocks import BlockManager
from .drafting import Drafter
from .loader import Bundle
from .lora import source as lora_source
from .memory import live_bytes, tensors_of
from .paged import PagedModel
from .pages import PagePool, pool_pages
from .place import PROCESSOR, Place
from .plugged import NONE, Architectures
from .prepare import prepared
from .shared import SharedModule


def check(source: ModelSource, settings: LoadSettings) -> None:
    """Raises BadArgument for an adapter or another rung, NotSupported when the draft model was not handed over."""
    if settings.draft and lora_source.is_adapter(source):
        said = f"{source.path} is an adapter: its requests use the draft model of its base"
        raise BadArgument(said, name="draft", got=settings.draft, want="nothing, for an adapter")
    if settings.draft and source.draft is None:
        why = "the files of the draft model did not come with those of the model"
        raise NotSupported(f"draft={settings.draft!r} cannot be used: {why}", why=why)
    if source.draft is not None and settings.rung not in ("", ladder.PAGED):
        said = f"a draft model guesses on rung {ladder.PAGED} alone, and rung={settings.rung!r} was asked for"
        raise BadArgument(said, name="rung", got=settings.rung, want=f"{ladder.PAGED} or nothing")


def settings_of(
    draft: ModelSource, settings: LoadSettings, context: int, own: Architectures = NONE, place: Place = PROCESSOR
) -> LoadSettings:
    """How to load the draft model of a model with this context. Raises BadModel, NotSupported."""
    asked = LoadSettings(settings.dtype, rung=ladder.PAGED)
    weights = checkpoint.check_weights(draft)
    with checkpoint.folder_of(draft) as folder:
        about = loader.describe(draft, asked, folder, weights, own, place)
    if not about.causal:
        why = f"{about.architecture} generates no text, so it cannot guess any"
        raise NotSupported(f"{draft.path} is no draft model: {why}", why=why)
    return LoadSettings(settings.dtype, max_context=min(context, about.context), rung=ladder.PAGED)


def load(
    source: ModelSource, settings: LoadSettings, bundle: Bundle, ops: OpTable, prefill_tokens: int,
    progress: ProgressSink, own: Architectures = NONE, place: Place = PROCESSOR,
) -> tuple[Drafter, int]:  # fmt: skip
    """The draft model of a loaded model, and the bytes of its weights.

    Raises BadArgument for another vocabulary, NotSupported for a model that cannot be paged, what loading raises.
    """
    chosen = settings_of(source, settings, bundle.about.context, own, place)
    small, trial = prepared(source, chosen, ops, progress, own, place)
    _check_vocabulary(source, small, bundle)
    shared = SharedModule(small.module)
    held = live_bytes(tensors_of(small.module))
    rung = ladder.choose(small, shared, trial, ops, ladder.PAGED, source.path)
    assert rung.layers is not None
    context = small.about.context
    pool = PagePool(rung.layers.shapes, pool_pages(context), small.about.dtype, place.device)
    model = PagedModel(shared.use(attention=attention.NAME), rung.layers, pool, ops)
    blocks = BlockManager(pool.pages)
    blocks.caching = settings.prefix_cache
    return Drafter(model, blocks, context, small.vocabulary, prefill_tokens, list(tensors_of(small.module))), held


def _check_vocabulary(source: ModelSource, small: Bundle, bundle: Bundle) -> None:
    """The ids that both have must mean the same; a token that one has more, and padding, do no harm."""
    ours, theirs = _words(bundle), _words(small)
    apart = sorted(id for id in ours.keys() & theirs.keys() if ours[id] != theirs[id])
    if apart:
        first = f"{apart[0]} is {theirs[apart[0]]!r} and not {ours[apart[0]]!r}"
        said = f"the draft model {source.path} has another vocabulary: {len(apart)} tokens differ, {first}"
        raise BadArgument(said, name="draft", got=source.path, want="a model with the same vocabulary")


def _words(bundle: Bundle) -> Mapping[int, str]:
    found: Any = bundle.tokenizer.get_vocab()
    return {id: word for word, id in found.items()}
