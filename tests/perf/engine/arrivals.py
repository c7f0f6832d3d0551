"""Which requests a bench makes: the same for every peer of a round, others in the next."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

from peers.peer import Job


def prompt(source: random.Random, length: int, vocabulary: int) -> list[int]:
    """Random token ids; the first few, which tokenizers keep for special tokens, do not occur."""
    return [source.randrange(16, vocabulary) for _ in range(length)]


def prompts(seed: int, count: int, length: int, vocabulary: int) -> list[list[int]]:
    """Prompts of one length that have no prefix in common."""
    source = random.Random(seed)
    return [prompt(source, length, vocabulary) for _ in range(count)]


def arrivals(
    seed: int, count: int, per_second: float, prompt_tokens: tuple[int, int], new_tokens: tuple[int, int],
    vocabulary: int,
) -> list[Job]:  # fmt: skip
    """A Poisson process of requests; the logarithms of their lengths are uniform between the two bounds, inclusive."""
    source, at, jobs = random.Random(seed), 0.0, []
    for _ in range(count):
        length = log_uniform(source, *prompt_tokens)
        jobs.append(Job(prompt(source, length, vocabulary), log_uniform(source, *new_tokens), at))
        at += source.expovariate(per_second)
    return jobs


def log_uniform(source: random.Random, low: int, high: int) -> int:
    """An integer from `low` to `high`, as often between 16 and 32 as between 32 and 64."""
    return min(high, int(math.exp(source.uniform(math.log(low), math.log(high + 1)))))


def texts(seed: int, count: int, tokens: tuple[int, int], words: Sequence[str]) -> list[str]:
    """Texts of words that are a token each, with lengths as in `arrivals`."""
    source = random.Random(seed)
    return [" ".join(source.choices(words, k=log_uniform(source, *tokens))) for _ in range(count)]
