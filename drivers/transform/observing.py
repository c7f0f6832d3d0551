"""What calibration text does in a model: how large the inputs of each linear layer are, how much each layer changes.

The model is run as it is stored, by transformers, on pages of its files that are given back as they are left.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.pytorch_utils import Conv1D

from llmos.syscalls.errors import NotSupported

from ..contract import LoadSettings, ModelSource, ProgressSink, SourceFile
from ..engine import loader
from ..engine.loader import Bundle
from ..engine.mapped import FilePages
from . import structure
from .quality import Text, given_text, own_text, perplexity

@dataclass
class Seen:
    """What was seen: squares of inputs by the path of the layer, and how alike each layer's input and output are.

    `perplexity` is the model's own on the part of the text that is kept for measuring.
    """

    text: Text
    perplexity: float = 0.0
    squares: dict[str, Tensor] = field(default_factory=dict)
    alike: dict[int, list[float]] = field(default_factory=dict)

    @property
    def norms(self) -> Mapping[str, Tensor]:
        """Of each linear layer, the norm of each of its inputs [K]."""
        return {name: total.sqrt() for name, total in self.squares.items()}

    @property
    def influence(self) -> Mapping[int, float]:
        """Of each layer, 1 minus the mean cosine of input and output (Men et al., "ShortGPT", 2024)."""
        return {number: 1 - sum(values) / len(values) for number, values in self.alike.items()}


@contextmanager
def loaded(source: ModelSource, progress: ProgressSink) -> Iterator[Bundle]:
    """A model as it is stored, on pages of its files that are given back as they are left, while it is loaded too.

    Raises BadModel, NotSupported.
    """
    pages = FilePages([file.path for file in source.files])
    bundle = loader.load(source, LoadSettings(), progress, sparing=True)
    with pages.watched():
        yield bundle


def observe(source: ModelSource, texts: Sequence[ModelSource], progress: ProgressSink) -> Seen:
    """Run the model on pieces of text; without any, on what it writes itself.

    Raises:
        BadArgument: what is given is no text, or too little.
        NotSupported: it is no model that writes text.
        BadModel.
    """
    with loaded(source, progress) as bundle:
        if not bundle.about.causal or bundle.tokenizer is None:
            why = f"{bundle.about.architecture} writes no text"
            raise NotSupported(f"{source.path}: nothing is learnt from text: {why}", why=why)
        module, context = bundle.module, bundle.about.context
        text = given_text(bundle.tokenizer, texts, context) if texts else own_text(module, context, progress)
        seen = Seen(text, perplexity(module, text.measure, progress, "measure the original"))
        with watched(module, seen), torch.inference_mode():
            for done, piece in enumerate(text.learn):
                progress(done, len(text.learn), "pieces", "observe")
                module.base_model(input_ids=piece[None], use_cache=False)
    return seen


def measured(source: ModelSource, folder: Path, text: Text, progress: ProgressSink) -> float:
    """Perplexity of a result in its folder, as it was written: what is told is what is served. Raises BadModel."""
    files = [SourceFile(path.name, path, path.stat().st_size) for path in sorted(folder.iterdir())]
    with loaded(ModelSource(source.path, "", files), progress) as bundle:
        return perplexity(bundle.module, text.measure, progress, "measure the result")


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
