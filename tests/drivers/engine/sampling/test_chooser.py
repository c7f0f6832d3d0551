"""The state of an answer: what it asks for, how answers of one request differ, which are given."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from llmos.drivers.contract import SamplingParams
from llmos.drivers.engine.sampling.chooser import Chooser, choosers, rank
from llmos.drivers.engine.sampling.philox import Stream, uniform


def chooser(**params: Any) -> Chooser:
    return Chooser(SamplingParams(**params), [1, 2], 0)


def test_only_what_needs_more_than_the_greatest_logit_is_not_plain() -> None:
    assert chooser().plain and chooser(max_tokens=3, stop=["x"], top_p=0.5, seed=1).plain
    for params in (
        {"temperature": 0.1}, {"repetition_penalty": 1.1}, {"presence_penalty": 0.1}, {"frequency_penalty": 0.1},
        {"logit_bias": {1: 1.0}}, {"logprobs": 0}, {"best_of": 2},
    ):  # fmt: skip
        assert not chooser(**params).plain


def test_answers_of_a_request_share_the_seed_and_differ_in_their_number() -> None:
    made = choosers(SamplingParams(n=3, temperature=1.0, seed=9), [1])
    assert [(each.seed, each.choice) for each in made] == [(9, 0), (9, 1), (9, 2)]
    assert len({each.uniform() for each in made}) == 3
    assert made[1].uniform(Stream.DRAFT) == uniform(9, 1, 0, Stream.DRAFT)
    made[1].accept(4)
    assert made[1].uniform() == uniform(9, 1, 1)


def test_without_a_seed_every_request_has_its_own() -> None:
    drawn = {choosers(SamplingParams(n=2, temperature=1.0), [1])[0].seed for _ in range(20)}
    assert len(drawn) == 20
    pair = choosers(SamplingParams(n=2, temperature=1.0), [1])
    assert pair[0].seed == pair[1].seed


def test_the_answers_given_are_those_of_the_greatest_log_probability_per_token() -> None:
    made = choosers(SamplingParams(n=2, best_of=4, temperature=1.0), [1])
    for each, cumulative, length in zip(made, (-4.0, -2.0, -3.0, -1.0), (4, 4, 1, 2), strict=True):
        each.cumulative, each.position = cumulative, length
    assert [each.choice for each in rank(made)] == [1, 3], "the mean, equal ones in their order"
    alike = choosers(SamplingParams(n=2, temperature=1.0), [1])
    alike[1].cumulative = 1.0
    assert [each.choice for each in rank(alike)] == [0, 1] and alike[0].mean == 0.0


def test_a_bias_on_a_token_that_the_output_has_not_is_no_trouble() -> None:
    scores = torch.zeros(3)
    chooser(logit_bias={1: 2.0, 7: 1.0}).adjust(scores)
    assert scores.tolist() == [0.0, 2.0, 0.0]


@pytest.mark.parametrize("penalty", ["presence_penalty", "frequency_penalty"])
def test_penalties_of_the_answer_do_not_see_the_prompt(penalty: str) -> None:
    made, scores = chooser(**{penalty: 1.0}), torch.zeros(3)
    made.adjust(scores)
    assert scores.tolist() == [0.0, 0.0, 0.0]
    made.accept(2)
    made.adjust(scores)
    assert scores.tolist() == [0.0, 0.0, -1.0]
