"""From files to a module with faster parts that answers as its files say."""

from __future__ import annotations

import gc

from ..contract import LoadSettings, ModelSource, ProgressSink
from ..ops.table import OpTable
from . import loader
from .loader import Bundle
from .mapped import FilePages
from .plugged import NONE, Architectures
from .surgery.operate import operate
from .verify import Trial


def prepared(
    source: ModelSource, settings: LoadSettings, ops: OpTable, progress: ProgressSink, own: Architectures = NONE
) -> tuple[Bundle, Trial | None]:
    """A model, with what it answered before its parts were replaced if it is a causal one.

    Loaded again as it is when it answers differently with them. Raises what loading raises.
    """
    bundle = loader.load(source, settings, progress, own)
    if not bundle.about.causal:
        return bundle, None
    trial = Trial(bundle)
    pages = FilePages([file.path for file in source.files])
    pages.drop()
    operate(bundle.module, ops, pages.trim)
    pages.drop()
    if trial.unchanged():
        return bundle, trial
    del bundle, trial
    collect()
    bundle = loader.load(source, settings, progress, own)
    return bundle, Trial(bundle)


def collect() -> None:
    """Free what was dropped now; modules and their hooks refer to each other."""
    gc.collect()
