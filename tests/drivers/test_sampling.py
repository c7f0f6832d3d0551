"""The checks that drivers share."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any

import msgspec
import pytest
from llmos.drivers.contract import SamplingParams
from llmos.drivers.sampling import OPTIONS, check
from llmos.syscalls.errors import BadArgument, NotSupported
from llmos.syscalls.types import Sampling


def test_the_defaults_are_fine_and_ask_for_no_option() -> None:
    check(SamplingParams())
    assert set(OPTIONS) <= {field.name for field in fields(SamplingParams)}


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_tokens": -1}, {"temperature": -0.1}, {"temperature": math.nan}, {"top_k": -1}, {"top_p": 0.0},
        {"top_p": 1.01}, {"min_p": -0.1}, {"min_p": 1.1}, {"repetition_penalty": 0.0}, {"presence_penalty": -2.1},
        {"frequency_penalty": 2.1}, {"n": 0}, {"best_of": 0}, {"beams": 0}, {"logprobs": -1}, {"logprobs": 101},
        {"prompt_logprobs": 101},
    ],
)  # fmt: skip
def test_values_out_of_range_are_refused_by_name(wrong: dict[str, Any]) -> None:
    """And the wire refuses the same ones."""
    ((name, value),) = wrong.items()
    with pytest.raises(BadArgument, match=name) as caught:
        check(SamplingParams(**wrong), OPTIONS)
    assert (caught.value.name, caught.value.got) == (name, str(value))
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(wrong, Sampling)


@pytest.mark.parametrize(
    "asked",
    [
        {"n": 2}, {"best_of": 1}, {"beams": 2}, {"logprobs": 0}, {"prompt_logprobs": 0}, {"grammar": {"regex": "a"}},
        {"speculative": {"method": "ngram"}},
    ],
)  # fmt: skip
def test_options_are_refused_unless_they_are_offered(asked: dict[str, Any]) -> None:
    (name,) = asked
    with pytest.raises(NotSupported, match=name) as caught:
        check(SamplingParams(**asked), set(OPTIONS) - {name})
    assert caught.value.why
    check(SamplingParams(**asked), [name])
