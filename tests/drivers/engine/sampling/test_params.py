"""Settings: ranges, and what does not go together."""

from __future__ import annotations

import math
from typing import Any

import pytest

from llmos.drivers.contract import SamplingParams
from llmos.drivers.engine.sampling.params import ALONE, MOST_CHOICES, check, choices
from llmos.syscalls.errors import BadArgument, TooLarge

SIZE = 8


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_tokens", -1), ("temperature", -0.1), ("temperature", math.nan), ("temperature", math.inf), ("top_k", -1),
        ("top_p", 0.0), ("top_p", 1.1), ("min_p", -0.1), ("repetition_penalty", 0.0), ("repetition_penalty", math.inf),
        ("presence_penalty", 2.1), ("frequency_penalty", -2.1), ("logprobs", 101), ("prompt_logprobs", -1),
        ("seed", -1), ("seed", 2**63), ("logit_bias", {8: 1.0}), ("logit_bias", {-1: 1.0}), ("n", 0), ("beams", 0),
        ("logit_bias", {1: math.nan}), ("logit_bias", {1: math.inf}), ("best_of", 0),
    ],
)  # fmt: skip
def test_values_out_of_range_are_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(BadArgument) as error:
        check(SamplingParams(**{name: value}), SIZE)
    assert error.value.name == name and error.value.want


@pytest.mark.parametrize("settings", [{"method": "magic"}, {"tokens": 0}, {"tokens": 33}, {"tokens": "4"}])
def test_speculation_of_another_kind_is_refused_by_name(settings: Any) -> None:
    with pytest.raises(BadArgument) as error:
        check(SamplingParams(speculative=settings), SIZE)
    assert error.value.name == f"speculative.{next(iter(settings))}"


def test_the_ends_of_the_ranges_are_taken() -> None:
    check(SamplingParams(), SIZE)
    check(SamplingParams(max_tokens=0, top_p=1.0, min_p=1.0, seed=2**63 - 1, logit_bias={7: -math.inf}), SIZE)
    check(SamplingParams(n=2, best_of=3, temperature=1.0, logprobs=100, prompt_logprobs=0), SIZE)
    check(SamplingParams(speculative={"method": "draft", "tokens": 32}, grammar={"regex": "a"}), SIZE)
    check(SamplingParams(beams=4, max_tokens=3, stop=["x"], stop_token_ids=[1], ignore_eos=True), SIZE)


@pytest.mark.parametrize(
    ("params", "names"),
    [
        ({"n": 3, "best_of": 2, "temperature": 1.0}, ("best_of", "n")),
        ({"n": 2}, ("n", "temperature")),
        ({"best_of": 2}, ("best_of", "temperature")),
        ({"beams": 2, "logit_bias": {1: 1.0}}, ("logit_bias", "beams")),
        ({"beams": 2, "temperature": 0.5}, ("temperature", "beams")),
        ({"beams": 2, "grammar": {"regex": "a"}}, ("grammar", "beams")),
        ({"beams": 2, "speculative": {}}, ("speculative", "beams")),
        ({"beams": 2, "n": 2}, ("n", "beams")),
    ],
)
def test_settings_that_contradict_each_other_are_both_named(params: Any, names: tuple[str, str]) -> None:
    with pytest.raises(BadArgument) as error:
        check(SamplingParams(**params), SIZE)
    assert error.value.name == names[0]
    assert all(name in str(error.value) for name in names)


def test_what_beams_exclude_are_all_settings_of_choosing() -> None:
    defaults = SamplingParams()
    assert all(getattr(defaults, name) == value for name, value in ALONE.items())
    neutral = {"max_tokens", "stop", "stop_token_ids", "ignore_eos", "beams", "logit_bias"}
    assert set(ALONE) | neutral == set(vars(defaults))


def test_more_answers_than_a_request_may_have() -> None:
    check(SamplingParams(n=MOST_CHOICES, temperature=1.0), SIZE)
    with pytest.raises(TooLarge) as error:
        check(SamplingParams(n=1, best_of=MOST_CHOICES + 1, temperature=1.0), SIZE)
    assert (error.value.limit, error.value.got) == (MOST_CHOICES, MOST_CHOICES + 1)


def test_choices_are_those_made_not_those_given() -> None:
    assert choices(SamplingParams(n=2)) == 2
    assert choices(SamplingParams(n=2, best_of=5)) == 5
