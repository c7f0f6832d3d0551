"""Choosing tokens: greedy, drawn, penalised, biased; and what is refused."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llmos.drivers.contract import SamplingParams
from llmos.drivers.engine.detokenizer import Vocabulary
from llmos.drivers.engine.loader import Bundle
from llmos.drivers.engine.sampler import MISSING, Sampler, check
from llmos.drivers.ops.table import OpTable
from llmos.syscalls.errors import BadArgument, DeviceFault, NotSupported

SIZE = 8
LOGITS = torch.tensor([0.0, 1.0, 2.0, 3.0, -1.0, -2.0, 2.5, 0.5])


@pytest.fixture(scope="session")
def vocabulary(bundle: Bundle) -> Vocabulary:
    return Vocabulary(bundle.tokenizer)


@pytest.fixture
def sampler(ops: OpTable, vocabulary: Vocabulary) -> Any:
    return lambda prompt=(), **params: Sampler(SamplingParams(**params), ops, vocabulary, SIZE, prompt)


def test_greedy_is_the_best_token_every_time(sampler: Any) -> None:
    assert [sampler().choose(LOGITS) for _ in range(3)] == [(3, None)] * 3


def test_half_precision_logits_are_raised_to_float32(sampler: Any) -> None:
    assert sampler(logprobs=0).choose(LOGITS.bfloat16())[1].logprob == pytest.approx(
        float(torch.log_softmax(LOGITS, -1)[3]), abs=1e-6
    )


def test_draws_follow_the_probabilities(sampler: Any) -> None:
    drawn = sampler(temperature=1.0, seed=1)
    counts = Counter(drawn.choose(LOGITS)[0] for _ in range(4000))
    for token, probability in enumerate(torch.softmax(LOGITS, -1).tolist()):
        assert abs(counts[token] / 4000 - probability) < 4 * math.sqrt(probability / 4000)


def test_a_seed_fixes_the_draws_and_its_absence_does_not(sampler: Any) -> None:
    def draws(**params: Any) -> list[int]:
        made = sampler(temperature=2.0, **params)
        return [made.choose(LOGITS)[0] for _ in range(40)]

    assert draws(seed=5) == draws(seed=5) != draws(seed=6)
    assert draws() != draws()


@given(st.floats(1e-38, 1e-3), st.floats(-1e4, 1e4))
def test_a_tiny_temperature_is_greedy_and_never_overflows(temperature: float, shift: float) -> None:
    made = Sampler(SamplingParams(temperature=temperature, seed=0), OpTable(), None, SIZE, ())  # type: ignore[arg-type]
    assert made.choose(LOGITS * 100 + shift)[0] == 3


def test_filters_keep_draws_inside(sampler: Any) -> None:
    drawn = sampler(temperature=5.0, top_k=3, seed=0)
    assert {drawn.choose(LOGITS)[0] for _ in range(200)} == {2, 3, 6}


def test_penalties_see_the_prompt_or_only_the_answer(sampler: Any) -> None:
    assert sampler(prompt=[3], repetition_penalty=2.0).choose(LOGITS)[0] == 6
    assert sampler(prompt=[3], presence_penalty=2.0).choose(LOGITS)[0] == 3
    present = sampler(presence_penalty=2.0)
    assert [present.choose(LOGITS)[0] for _ in range(3)] == [3, 6, 2]
    frequent = sampler(frequency_penalty=0.4)
    assert [frequent.choose(LOGITS)[0] for _ in range(4)] == [3, 3, 6, 3]


def test_bias_changes_the_choice_and_not_the_log_probability(sampler: Any) -> None:
    token, scored = sampler(logit_bias={0: 50.0}, logprobs=2).choose(LOGITS)
    assert token == scored.token == 0
    expected = torch.log_softmax(LOGITS, -1)
    assert scored.logprob == pytest.approx(float(expected[0]))
    assert [(id, value) for id, _, value in scored.top] == [
        (3, pytest.approx(float(expected[3]))), (6, pytest.approx(float(expected[6]))),
    ]  # fmt: skip
    assert sampler(logit_bias={3: -math.inf}).choose(LOGITS)[0] == 6


def test_an_output_narrower_than_the_input_is_no_trouble(ops: OpTable, vocabulary: Vocabulary) -> None:
    params = SamplingParams(repetition_penalty=2.0, logit_bias={3: -10.0, 9: 1.0})
    assert Sampler(params, ops, vocabulary, 10, [9, 6]).choose(LOGITS)[0] == 2


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_logits_that_are_not_finite_are_a_fault_of_the_model(sampler: Any, value: float) -> None:
    damaged = LOGITS.clone()
    damaged[4] = value
    for params in ({}, {"temperature": 1.0}):
        with pytest.raises(DeviceFault):
            sampler(**params).choose(damaged)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_tokens", -1), ("temperature", -0.1), ("temperature", math.nan), ("temperature", math.inf), ("top_k", -1),
        ("top_p", 0.0), ("top_p", 1.1), ("min_p", -0.1), ("repetition_penalty", 0.0), ("presence_penalty", 2.1),
        ("frequency_penalty", -2.1), ("logprobs", 101), ("seed", -1), ("logit_bias", {8: 1.0}),
        ("logit_bias", {1: math.nan}),
    ],
)  # fmt: skip
def test_values_out_of_range_are_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(BadArgument) as error:
        check(SamplingParams(**{name: value}), SIZE)
    assert error.value.name == name


@pytest.mark.parametrize("name", MISSING)
def test_what_is_not_offered_says_why(name: str) -> None:
    value: Any = {"grammar": {"regex": "a"}, "speculative": {"method": "ngram"}}.get(name, 2)
    with pytest.raises(NotSupported) as error:
        check(SamplingParams(**{name: value}), SIZE)
    assert error.value.why == MISSING[name]
    check(SamplingParams(n=1, best_of=1, beams=1, max_tokens=0, top_p=1.0, min_p=1.0, seed=2**63 - 1), SIZE)
