"""Which requests the device chooses for, and with which numbers."""

from __future__ import annotations

from typing import Any

import pytest

from llmos.drivers.contract import SamplingParams
from llmos.drivers.engine.lane.settings import Settings, chosen_on_device, settings_of
from llmos.drivers.engine.sampling.chooser import choosers


@pytest.mark.parametrize(
    "asked", [{}, {"temperature": 1.0, "top_k": 5, "top_p": 0.5, "min_p": 0.1, "n": 3, "stop": ("a",)}]
)
def test_what_the_op_does_is_chosen_on_the_device(asked: dict[str, Any]) -> None:
    assert chosen_on_device(SamplingParams(**asked))


@pytest.mark.parametrize(
    "asked",
    [
        {"logprobs": 0}, {"prompt_logprobs": 0}, {"logit_bias": {1: 1.0}}, {"repetition_penalty": 1.1},
        {"presence_penalty": 0.1}, {"frequency_penalty": 0.1}, {"grammar": {"regex": "a"}}, {"speculative": {}},
        {"n": 1, "best_of": 2, "temperature": 1.0},
    ],
)  # fmt: skip
def test_what_needs_a_look_is_chosen_on_the_host(asked: dict[str, Any]) -> None:
    assert not chosen_on_device(SamplingParams(**asked))


def test_counters_are_the_positions_in_the_answer_and_no_answer_has_anothers() -> None:
    params = SamplingParams(temperature=0.5, top_k=4, top_p=0.9, min_p=0.2, seed=11, n=2)
    made = [settings_of(chooser, 10) for chooser in choosers(params, range(10))]
    assert made[0] == Settings(0.5, 4, 0.9, 0.2, 11, -9)
    assert [each.base + 9 for each in made] == [0, 1 << 32]
