"""Sampling options: greedy by default, and every limit holds."""

from __future__ import annotations

import msgspec
import pytest
from llmos.syscalls.types import EmbedOptions, Sampling, Speculative


def test_the_default_is_greedy_and_filters_nothing() -> None:
    sampling = Sampling()
    assert (sampling.temperature, sampling.top_k, sampling.top_p, sampling.min_p) == (0.0, 0, 1.0, 0.0)
    assert (sampling.repetition_penalty, sampling.presence_penalty, sampling.frequency_penalty) == (1.0, 0.0, 0.0)
    assert (sampling.max_tokens, sampling.n, sampling.seed, sampling.stop) == (128, 1, None, [])


EDGES: list[tuple[str, list[float | int], list[float | int]]] = [
    ("max_tokens", [0, 10**9], [-1]),
    ("temperature", [0, 2.5], [-0.1, float("nan")]),
    ("top_k", [0, 50], [-1]),
    ("top_p", [1e-6, 1], [0, 1.01]),
    ("min_p", [0, 1], [-0.1, 1.1]),
    ("repetition_penalty", [0.1], [0, -1]),
    ("presence_penalty", [-2, 2], [-2.1, 2.1]),
    ("frequency_penalty", [-2, 2], [-2.1, 2.1]),
    ("seed", [0, 2**63 - 1], [-1, 2**63]),
    ("n", [1], [0]),
    ("best_of", [1], [0]),
    ("beams", [1], [0]),
    ("logprobs", [0, 100], [-1, 101]),
    ("prompt_logprobs", [0, 100], [-1, 101]),
]


@pytest.mark.parametrize(("name", "good", "bad"), EDGES)
def test_limits(name: str, good: list[float | int], bad: list[float | int]) -> None:
    for value in good:
        assert getattr(msgspec.convert({name: value}, Sampling), name) == value
    for value in bad:
        with pytest.raises(msgspec.ValidationError, match=name):
            msgspec.convert({name: value}, Sampling)


def test_an_empty_stop_string_would_stop_at_once_and_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError, match=r"stop\[1\]"):
        msgspec.convert({"stop": ["end", ""]}, Sampling)


def test_draft_length_is_limited() -> None:
    for tokens in (0, 33):
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert({"tokens": tokens}, Speculative)


def test_embedding_is_a_normalised_mean_by_default() -> None:
    assert EmbedOptions() == EmbedOptions(pooling="mean", normalize=True, max_tokens=None)
