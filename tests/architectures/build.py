"""Tiny models whose greedy answers say something: many different tokens, no near ties, every parameter felt.

The library's own initialisation is made for training: a fresh model repeats one token whatever is wrong with it. Here
matrices are large enough that each layer changes the answer, and what starts as zeros or ones is disturbed, so that
biases, gates, sinks and norms take part.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from .names import VARIANTS
from .reference import Answer, greedy
from .shrink import tiny_config

PROMPT = (31, 7, 198, 64, 250, 12, 77, 140, 5, 91, 33, 8, 220, 101, 60, 17, 45, 300, 2, 260, 9, 71, 88, 23)
OTHER_PROMPT = (55, 14, 201, 99, 6, 180, 42, 77, 120, 66, 210, 34, 150, 19, 272, 83, 49)
TOKENS = 32
DISTINCT = 8
MARGIN = 1e-4
"""How far the two best logits are apart at least, as a share of the largest: a hundred times what float32 loses."""

Scales = tuple[float, float]
SCALES: tuple[Scales, ...] = ((1.0, 0.16), (0.1, 0.16), (0.02, 0.16), (0.1, 0.6), (1.0, 0.6))
"""Standard deviations of embeddings and of other matrices, tried in turn; tied embeddings are better small, or a model
says its last token again."""

VECTOR = 0.1
ATTEMPTS = 15
_LATER = {
    1: "axk1 bart bert bert-generation big_bird biogpt blenderbot-small bloom camembert ctrl data2vec-text dbrx doge "
    "ernie falcon got_ocr2 gpt_oss granite_swa jamba kimi_linear llama4 llama4_text mamba mbart megatron-bert "
    "ministral3 moss_transcribe_diarize mpt mvp olmo openai-gpt phi4_multimodal plbart recurrent_gemma roberta "
    "roc_bert smollm3 trocr xglm xlm-roberta",
    2: "cpmant electra marian rembert roformer xlnet zaya",
}  # fmt: skip
FIRST_ATTEMPT = {name: attempt for attempt, names in _LATER.items() for name in names.split()} | {
    "falcon, ALiBi": 1, "gemma3_text, full first": 5,
}  # fmt: skip
"""Where earlier attempts have no variety or do not feel a planted fault."""

KEPT = ("A_log", "dt_bias", "dt_proj", "time_decay", "time_first", ".D")
"""Parameters whose start belongs to the architecture: the decay of a state has to stay a decay."""


@dataclass(frozen=True)
class TinyModel:
    """A model of one architecture, and what `generate` answers to PROMPT."""

    name: str
    module: Any
    answer: Answer


def tiny_model(name: str) -> TinyModel:
    """A model of a type or variant: the first attempt with enough different tokens and no near tie.

    Raises ValueError when there is none.
    """
    config, seen = config_of(name), []
    for seed, scales in _attempts(name, config):
        module = random_module(config_of(name), seed, scales)
        answer = greedy(module, PROMPT, TOKENS)
        if answer.distinct >= DISTINCT and answer.margin >= MARGIN:
            return TinyModel(name, module, answer)
        seen.append(f"{answer.distinct} tokens, margin {answer.margin:.1e}")
    raise ValueError(f"no attempt makes a {name} that answers with variety: {'; '.join(seen)}")


def config_of(name: str) -> Any:
    """The configuration of a type or variant."""
    base, changes = VARIANTS.get(name, (name, {}))
    return tiny_config(base, **changes)


def random_module(config: Any, seed: int = 0, scales: Scales = SCALES[0]) -> Any:
    """A causal LM of this configuration that never ends by itself."""
    torch.manual_seed(seed)
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
    for part in module.modules():
        if isinstance(part, nn.Embedding) and part.padding_idx is not None:
            part.weight[part.padding_idx] = 0.0  # as trained models have it, and some types make it at load


def _constant(parameter: Tensor) -> bool:
    return parameter.numel() > 0 and bool((parameter == parameter.flatten()[0]).all())


def _attempts(name: str, config: Any) -> Iterator[tuple[int, Scales]]:
    tied = bool(getattr(config.get_text_config(decoder=True), "tie_word_embeddings", False))
    order = SCALES[2:] + SCALES[:2] if tied else SCALES
    first = FIRST_ATTEMPT.get(name, 0)
    for seed in range(first, first + ATTEMPTS):
        yield seed, order[seed % len(order)]
