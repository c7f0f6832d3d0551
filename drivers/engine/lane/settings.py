"""Which answers are chosen on the device, and by which settings."""

from __future__ import annotations

from dataclasses import dataclass

from ...contract import SamplingParams
from ..sampling.chooser import Chooser
from ..sampling.penalties import Penalties

CHOICE_SHIFT = 32
"""A counter of random numbers is the choice, shifted, and the position in the answer."""


@dataclass(frozen=True)
class Settings:
    """How the tokens of one answer are chosen; the token at position p of its row draws with the counter `base` + p."""

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int = 0
    base: int = 0


GREEDY = Settings()
"""Of rows whose choice on the device nobody looks at."""


def chosen_on_device(params: SamplingParams) -> bool:
    """Whether the op `sample` does all that a request asks for. It is so for all tokens of a request or for none, so
    that they do not depend on who else takes part in a step."""
    looked_at = params.logprobs is not None or params.prompt_logprobs is not None
    ranked = params.best_of is not None and params.best_of > params.n
    guided = params.grammar is not None or bool(params.logit_bias) or Penalties.wanted(params)
    return not (looked_at or ranked or guided or params.speculative is not None)


def settings_of(chooser: Chooser, prompt: int) -> Settings:
    """Those of an answer to a prompt of so many tokens: its first token comes after position `prompt` - 1."""
    params = chooser.params
    base = (chooser.choice << CHOICE_SHIFT) + 1 - prompt
    return Settings(params.temperature, params.top_k, params.top_p, params.min_p, chooser.seed, base)
