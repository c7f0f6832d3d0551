"""Planted faults of one token: in positions, in the window, in what is seen. Each must change a tiny model's answer.

A comparison of answers shows nothing about positions if the model does not feel them. These helpers make the library
itself answer with the fault, so that the tiny model of a type is known to tell right from wrong.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import transformers

from .build import PROMPT, TOKENS, TinyModel
from .reference import Answer, greedy

WINDOWS = (
    "sliding_window", "window_size", "attention_window_size", "attention_chunk_size", "sliding_window_size",
    "local_attention_window_len",
)  # fmt: skip
HOLE = 9
"""Which token of the prompt is not seen."""

WITHOUT_POSITIONS: Mapping[str, str] = {
    "bloom": "ALiBi: distances between keys",
    "cpmant": "distances between keys",
    "falcon, ALiBi": "ALiBi: distances between keys",
    "falcon_mamba": "recurrent",
    "granitemoehybrid": "recurrent layers keep the order",
    "inkling2_text": "distances between keys",
    "inkling_text": "distances between keys",
    "jamba": "recurrent layers keep the order",
    "kimi_linear": "recurrent layers keep the order",
    "mamba": "recurrent",
    "mamba2": "recurrent",
    "mpt": "ALiBi: distances between keys",
    "nemotron_h": "recurrent layers keep the order",
    "reformer": "takes the positions of a whole padded sequence only",
    "rwkv": "recurrent",
    "xlm": "generate hands it none",
    "xlnet": "distances between keys",
    "xlstm": "recurrent",
    "zamba": "recurrent layers keep the order",
    "zamba2": "recurrent layers keep the order",
}
WITHOUT_WINDOW: Mapping[str, str] = {
    "inkling2_text": "its weights have the size of the window",
    "inkling_text": "its weights have the size of the window",
    "moshi": "see its override",
    "nemotron_h": "the field is not used",
}


def shifted_positions(model: TinyModel) -> Answer | None:
    """The positions of the last token of the prompt, or of the first answer, and of all that follow are one off.

    None for a type without positions.
    """
    if model.name in WITHOUT_POSITIONS:
        return None
    if "position_ids" in inspect.signature(model.module.forward).parameters:
        positions = torch.arange(len(PROMPT))[None]
        positions[0, -1] -= 1
        return greedy(model.module, PROMPT, TOKENS, position_ids=positions)
    with _late_tables(model.module):
        return greedy(model.module, PROMPT, TOKENS)


def wider_window(model: TinyModel) -> Answer | None:
    """Every window reaches one token further. None for a type without one."""
    config = copy.deepcopy(model.module.config)
    found = [(part, name) for part in _text_parts(config) for name in WINDOWS if getattr(part, name, None)]
    if not found or model.name in WITHOUT_WINDOW:
        return None
    for part, name in found:
        setattr(part, name, getattr(part, name) + 1)
    wider = type(model.module)(config).eval()
    wider.load_state_dict(model.module.state_dict())
    wider.generation_config = model.module.generation_config
    return greedy(wider, PROMPT, TOKENS)


def hole(model: TinyModel) -> Answer:
    """One token of the prompt is not seen: hidden by the mask, or left out where a type looks at no mask."""
    mask = torch.ones(1, len(PROMPT), dtype=torch.long)
    mask[0, HOLE] = 0
    hidden = greedy(model.module, PROMPT, TOKENS, attention_mask=mask)
    if not torch.equal(hidden.logits, model.answer.logits):
        return hidden
    return greedy(model.module, PROMPT[:HOLE] + PROMPT[HOLE + 1 :], TOKENS)


def _text_parts(config: Any) -> Iterator[Any]:
    yield config
    for name, part in vars(config).items():
        if isinstance(part, transformers.PreTrainedConfig) and not name.startswith(("vision", "audio")):
            yield part


@contextmanager
def _late_tables(module: Any) -> Iterator[None]:
    """Types that count positions inside: their table of positions is read one too far after the prompt."""
    tables = [part for name, part in module.named_modules() if name.endswith(("embed_positions", "rotary_emb"))]
    handles = [table.register_forward_pre_hook(_Late(table), with_kwargs=True) for table in tables]
    assert handles, "no table of positions was found"
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class _Late:
    """Adds one to the positions of every call but the first, which is the prompt's."""

    def __init__(self, table: Any) -> None:
        self._signature = inspect.signature(table.forward)
        self._called = False

    def __call__(self, _table: Any, args: Any, kwargs: Any) -> Any:
        bound = self._signature.bind(*args, **kwargs)
        for name in ("position_ids", "past_key_values_length"):
            if self._called and bound.arguments.get(name) is not None:
                bound.arguments[name] = bound.arguments[name] + 1
        self._called = True
        return bound.args, bound.kwargs
