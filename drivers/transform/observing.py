"""What calibration text does in a model: how large the inputs of each linear layer are, how much each layer changes.

The model is run as it is stored, by transformers, on pages of its files that are given back as they are left.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.pytorch_utils import Conv1D

from llmos.syscalls.errors import BadArgument, NotSupported

from ..contract import LoadSettings, ModelSource, ProgressSink
from ..engine import loader
from ..engine.mapped import FilePages
from . import structure

SAMPLES, LENGTH = 16, 512
"""Pieces of text that are read, and their tokens; fewer where the text or the model's context is shorter."""
LEAST = 2
"""Tokens of a piece."""


@dataclass
class Seen:
    """What was seen: squares of inputs by the path of the layer, and how alike each layer's input and output are."""

    squares: dict[str, Tensor] = field(default_factory=dict)
    alike: dict[int, list[float]] = field(default_factory=dict)
    tokens: int = 0

    @property
    def norms(self) -> Mapping[str, Tensor]:
        """Of each linear layer, the norm of each of its inputs [K]."""
        return {name: total.sqrt() for name, total in self.squares.items()}

    @property
    def influence(self) -> Mapping[int, float]:
        """Of each layer, 1 minus the mean cosine of input and output (Men et al., "ShortGPT", 2024)."""
        return {number: 1 - sum(values) / len(values) for number, values in self.alike.items()}


def observe(source: ModelSource, texts: Sequence[ModelSource], progress: ProgressSink) -> Seen:
    """Run the model on pieces of text.

    Raises:
        BadArgument: there is no text, or too little.
        NotSupported: it is no model that writes text.
        BadModel.
    """
    bundle = loader.load(source, LoadSettings(), progress)
    if not bundle.about.causal or bundle.tokenizer is None:
        why = f"{bundle.about.architecture} writes no text"
        raise NotSupported(f"{source.path}: nothing is learnt from text: {why}", why=why)
    pieces = pieces_of(bundle.tokenizer, texts, min(LENGTH, bundle.about.context))
    seen = Seen()
    pages = FilePages([file.path for file in source.files])
    with watched(bundle.module, seen), pages.watched(), torch.inference_mode():
        for done, piece in enumerate(pieces):
            progress(done, len(pieces), "pieces", "observe")
            bundle.module(input_ids=piece[None], use_cache=False)
            seen.tokens += len(piece)
    return seen


def pieces_of(tokenizer: Any, texts: Sequence[ModelSource], length: int) -> list[Tensor]:
    """Pieces of `length` tokens, spread over all text. Raises BadArgument."""
    if not texts:
        raise BadArgument("this method learns from text: give some (--text FILE)", name="sources", want="text files")
    whole: list[int] = []
    for text in texts:
        for file in text.files:
            whole += tokenizer(file.path.read_text(errors="replace"), add_special_tokens=False)["input_ids"]
    if len(whole) < LEAST:
        raise BadArgument(f"the text has {len(whole)} tokens, which is too little", name="sources", got=str(len(whole)))
    parts = [whole[start : start + length] for start in range(0, len(whole), length)]
    parts = [part for part in parts if len(part) >= LEAST]
    step = max(1, len(parts) // SAMPLES)
    return [torch.tensor(part) for part in parts[::step][:SAMPLES]]


@contextmanager
def watched(module: nn.Module, seen: Seen) -> Iterator[None]:
    """Note what goes through a model's linear layers, and through its layers, meanwhile."""
    with ExitStack() as stack:
        for name, part in module.named_modules():
            if isinstance(part, nn.Linear | Conv1D):
                handle = part.register_forward_pre_hook(_inputs(seen, name))
                stack.callback(handle.remove)
            elif structure.is_layer(name):
                stack.callback(part.register_forward_hook(_change(seen, name)).remove)
        yield


def _inputs(seen: Seen, name: str) -> Any:
    def hook(_module: nn.Module, given: tuple[Tensor, ...]) -> None:
        rows = given[0].flatten(0, -2).float()
        squares = rows.square().sum(dim=0)
        seen.squares[name] = seen.squares[name] + squares if name in seen.squares else squares

    return hook


def _change(seen: Seen, name: str) -> Any:
    number = structure.layer_of(f"{name}.x")

    def hook(_module: nn.Module, given: tuple[Tensor, ...], answer: Any) -> None:
        after = answer[0] if isinstance(answer, tuple) else answer
        if number is not None and given:
            likeness = F.cosine_similarity(given[0].float(), after.float(), dim=-1)
            seen.alike.setdefault(number, []).append(float(likeness.mean()))

    return hook
