"""From files to a module with faster parts that answers as its files say."""

from __future__ import annotations

import gc

from ..contract import LoadSettings, ModelSource, ProgressSink
from ..ops.table import OpTable
from . import loader
from .finite import check_answer
from .kinds import TEXT
from .loader import Bundle
from .mapped import FilePages, trim_heap
from .place import PROCESSOR, Place
from .plugged import NONE, Architectures
from .surgery.operate import operate
from .verify import ForwardTrial, Trial, forward_trial


def prepared(
    source: ModelSource, settings: LoadSettings, ops: OpTable, progress: ProgressSink, own: Architectures = NONE,
    place: Place = PROCESSOR,
) -> tuple[Bundle, Trial | None]:  # fmt: skip
    """A model, with what it answered before its parts were replaced if it is a causal one.

    Loaded again as it is when it answers differently with them; parts of models that read no text, or write some, are
    not replaced. Raises what loading raises.
    """
    pages = FilePages([file.path for file in source.files])
    bundle = loader.load(source, settings, progress, own, place, causal=False)
    pages.trim()
    trial = _trial(source, bundle)
    if trial is None:
        return bundle, None
    trim_heap()
    pages.drop()
    operate(bundle.module, ops, pages.trim)
    trim_heap()
    pages.drop()
    unchanged = trial.unchanged()
    trim_heap()
    if unchanged:
        return bundle, trial if isinstance(trial, Trial) else None
    del bundle, trial
    collect()
    bundle = loader.load(source, settings, progress, own, place, causal=False)
    return bundle, _causal(source, bundle) if bundle.about.causal else None


def _causal(source: ModelSource, bundle: Bundle) -> Trial:
    """Its trial, of which the first run also shows that it runs at all."""
    with loader.running(source, bundle.about):
        trial = Trial(bundle)
    check_answer(source.path, bundle.about.architecture, trial.expected)
    return trial


def _trial(source: ModelSource, bundle: Bundle) -> Trial | ForwardTrial | None:
    if bundle.about.causal:
        return _causal(source, bundle)
    kind = bundle.about.kind
    return None if kind.writes or kind.reads != TEXT else forward_trial(bundle)


def collect() -> None:
    """Free what was dropped now; modules and their hooks refer to each other, and the heap keeps what was freed."""
    gc.collect()
    trim_heap()
