"""Tiny models whose greedy answers say something: many different tokens, no near ties, every part of the model felt.

The library's own initialisation is made for training: answers of a fresh model repeat one token whatever is wrong with
it. Here matrices are large enough that each layer changes the answer, and what starts as zeros or ones is disturbed, so
that biases, gates, sinks and norms take part too.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from .reference import Answer, greedy
from .shrink import tiny_config

PROMPT = (31, 7, 198, 64, 250, 12, 77, 140, 5, 91, 33, 8, 220, 101, 60, 17, 45, 300, 2, 260, 9, 71, 88, 23)
TOKENS = 32
DISTINCT = 8
MARGIN = 1e-4
"""How far the two best logits are apart at least, as a share of the largest: a hundred times what float32 loses."""

VECTOR = 0.1
SCALES = ((1.0, 0.16), (0.1, 0.16), (0.02, 0.16), (0.1, 0.6), (1.0, 0.6))
"""Standard deviations of embeddings and of other matrices, tried in turn; tied embeddings are better small, or a model
says its last token again."""

ATTEMPTS = 15
Scales = tuple[float, float]
KEPT = ("A_log", "dt_bias", "dt_proj", "time_decay", "time_first", ".D")
"""Parameters whose start is part of the architecture: the decay of a state has to stay a decay."""


class TinyModel:
    """A model of one architecture and what `generate` answers to PROMPT."""

    def __init__(self, name: str, module: Any, answer: Answer) -> None:
        self.name, self.module, self.answer = name, module, answer


def tiny_model(name: str, **changes: Any) -> TinyModel:
    """The first attempt with enough different tokens and no near tie. Raises ValueError when none has."""
    seen = []
    for seed, scales in _attempts(tiny_config(name, **changes)):
        module = random_module(tiny_config(name, **changes), seed, scales)
        answer = greedy(module, PROMPT, TOKENS)
        if answer.distinct >= DISTINCT and answer.margin >= MARGIN:
            return TinyModel(name, module, answer)
        seen.append(f"{answer.distinct} tokens, margin {answer.margin:.1e}")
    raise ValueError(f"no attempt makes a {name} that answers with variety: {'; '.join(seen)}")


def random_module(config: Any, seed: int = 0, scales: Scales = SCALES[0]) -> Any:
    """A causal LM of this configuration, ready to generate, that never ends by itself."""
    module = transformers.AutoModelForCausalLM.from_config(config).eval()
    disturb(module, seed, scales)
    module.generation_config = transformers.GenerationConfig(bos_token_id=0, pad_token_id=3)
    return module


@torch.no_grad()
def disturb(module: nn.Module, seed: int, scales: Scales) -> None:
    """Give every parameter a value that matters, the same for the same seed."""
    generator = torch.Generator().manual_seed(seed)
    tables = {id(part.weight) for part in module.modules() if isinstance(part, nn.Embedding)}
    for name, parameter in module.named_parameters():
        if not parameter.is_floating_point() or any(part in name for part in KEPT):
            continue
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter.ndim >= 2:
            parameter.copy_(noise * scales[id(parameter) not in tables])
        elif _constant(parameter):
            parameter.add_(noise * VECTOR)


def _constant(parameter: Tensor) -> bool:
    return parameter.numel() > 0 and bool((parameter == parameter.flatten()[0]).all())


def _attempts(config: Any) -> Iterator[tuple[int, Scales]]:
    tied = bool(getattr(config.get_text_config(decoder=True), "tie_word_embeddings", False))
    order = SCALES[2:] + SCALES[:2] if tied else SCALES
    for seed in range(ATTEMPTS):
        yield seed, order[seed % len(order)]
