"""A few tokens through a new adapter, so that one that the engine cannot serve is refused before it is used."""

from __future__ import annotations

import torch

from llmos.syscalls.errors import BadModel, NotSupported

from .. import kinds, loader
from ..loader import Bundle
from ..memory import device_of, out_of_memory
from ..shared import SharedModule
from .layout import Group, Layout

TOKENS = 5


def check_runs(bundle: Bundle, shared: SharedModule, name: str, what: str) -> None:
    """Run tokens of which some go through the adapter. Raises NotSupported, BadModel for answers that are not finite.

    What reads more than token ids is not tried; an encoder-decoder gives its layers two inputs, and all of both.
    """
    kind = bundle.about.kind
    if kind.reads != kinds.TEXT:
        return
    ids = torch.arange(min(TOKENS, bundle.vocabulary), device=device_of(bundle.module))[None]
    more = {"decoder_input_ids": ids} if kind is kinds.SEQ2SEQ else {}
    module = shared.use(name)
    if kind is not kinds.SEQ2SEQ:
        layout = Layout(ids.shape[1], (Group(shared.adapters.slot(name), 1, ids.shape[1] - 1),))
        shared.adapters.step.set_layouts(layout, layout)
    try:
        with torch.inference_mode():
            answer = module(input_ids=ids, **more)[0]
    except loader.FAILURES as error:
        why = f"its layers do not take an adapter: {str(error).partition(chr(10))[0][:200]}"
        raise out_of_memory(error) or NotSupported(f"{what}: {why}", why=why) from error
    finally:
        shared.adapters.step.clear()
    if not bool(answer.isfinite().all()):
        why = "the base answers with values that are not finite when it takes part"
        raise BadModel(f"{what}: {why}", file="", why=why)
