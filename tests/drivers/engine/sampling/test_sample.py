"""Choosing a step's tokens: greedy, drawn, penalised, biased, scored; and that no row sees another."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from chi_square import follows
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor

from llmos.drivers.contract import SamplingParams
from llmos.drivers.engine.detokenizer import Vocabulary
from llmos.drivers.engine.sampling import sample as module
from llmos.drivers.engine.sampling.chooser import Chooser, Sampled, choosers
from llmos.drivers.engine.sampling.sample import sample
from llmos.drivers.ops.reference import filter_logits
from llmos.syscalls.errors import BadArgument, DeviceFault, NotSupported

LOGITS = torch.tensor([0.0, 1.0, 2.0, 3.0, -1.0, -2.0, 2.5, 0.5])


def chooser(prompt: Sequence[int] = (), choice: int = 0, **params: Any) -> Chooser:
    return Chooser(SamplingParams(**params), prompt, params.get("seed") or 0, choice)


def draw(vocabulary: Vocabulary, made: Chooser, logits: Tensor = LOGITS, count: int = 1) -> list[Sampled]:
    return [sample([made], logits.unsqueeze(0), vocabulary)[0] for _ in range(count)]


def tokens(sampled: Sequence[Sampled]) -> list[int]:
    return [each.token for each in sampled]


def test_greedy_is_the_best_token_every_time(vocabulary: Vocabulary) -> None:
    assert draw(vocabulary, chooser(), count=3) == [Sampled(3)] * 3
    assert sample([], LOGITS.unsqueeze(0), vocabulary) == []


def test_greedy_is_the_lowest_of_equal_ones_also_when_it_is_adjusted(vocabulary: Vocabulary) -> None:
    equal = torch.tensor([1.0, 5.0, 5.0, 5.0])
    assert tokens(draw(vocabulary, chooser(), equal)) == [1]
    assert tokens(draw(vocabulary, chooser(logit_bias={0: 1.0, 1: -1.0}), equal)) == [2]


def test_logits_stay_as_they_are(vocabulary: Vocabulary) -> None:
    logits = LOGITS.repeat(4, 1)
    rows = [chooser(), chooser(temperature=1.0), chooser([3], repetition_penalty=2.0), chooser(logprobs=1)]
    sample(rows, logits, vocabulary)
    assert torch.equal(logits, LOGITS.repeat(4, 1))


@pytest.mark.parametrize(
    "params",
    [
        {"temperature": 0.7}, {"top_k": 5, "min_p": 0.1},
        *(pytest.param(each, marks=pytest.mark.slow) for each in ({}, {"top_k": 3}, {"top_p": 0.7}, {"min_p": 0.2})),
    ],
)  # fmt: skip
def test_draws_follow_the_probabilities_of_the_reference(vocabulary: Vocabulary, params: dict[str, float]) -> None:
    settings: dict[str, Any] = {"temperature": 1.0, **params}
    made = chooser(seed=1, **settings)
    scaled = LOGITS / settings["temperature"]
    kept = filter_logits(scaled, settings.get("top_k", 0), settings.get("top_p", 1.0), settings.get("min_p", 0.0))
    expected = dict(enumerate(torch.softmax(kept, -1).tolist()))
    drawn = tokens(draw(vocabulary, made, count=4000))
    assert follows(drawn, expected)
    assert not follows(drawn, dict(enumerate(torch.softmax(LOGITS * 0.8, -1).tolist())))


def test_a_seed_fixes_the_draws_and_its_absence_does_not(vocabulary: Vocabulary) -> None:
    def drawn(**params: Any) -> list[int]:
        (made,) = choosers(SamplingParams(temperature=2.0, **params), [])
        return tokens(draw(vocabulary, made, count=40))

    assert drawn(seed=5) == drawn(seed=5) != drawn(seed=6)
    assert drawn() != drawn()


PARAMS: list[dict[str, Any]] = [
    {}, {"temperature": 1.0}, {"temperature": 0.6, "top_p": 0.9}, {"temperature": 2.0, "top_k": 20, "logprobs": 2},
    {"logprobs": 3}, {"repetition_penalty": 1.5}, {"temperature": 1.3, "min_p": 0.01, "frequency_penalty": 0.5},
    {"logit_bias": {5: 9.0}}, {"temperature": 3.0, "presence_penalty": -1.0, "logit_bias": {2: -math.inf}},
]  # fmt: skip


@example([3, 4], 11580, 2, torch.bfloat16, 70)
@given(
    st.lists(st.integers(0, len(PARAMS) - 1), min_size=1, max_size=12), st.integers(0, 2**31), st.integers(1, 9),
    st.sampled_from([torch.float32, torch.bfloat16]), st.sampled_from([70, 1300]),
)  # fmt: skip
def test_an_answer_is_the_same_alone_and_in_any_batch(
    kinds: list[int], seed: int, tile: int, dtype: torch.dtype, size: int
) -> None:
    steps = 3
    logits = torch.randn(steps, len(kinds), size, generator=torch.Generator().manual_seed(seed)).mul(3).to(dtype)
    words = _Words()

    def rows() -> list[Chooser]:
        return [chooser([1, 2], choice=at, seed=seed, **PARAMS[kind]) for at, kind in enumerate(kinds)]

    together, before = rows(), module.TILE
    module.TILE = tile * size
    try:
        batched = [sample(together, logits[step], words) for step in range(steps)]
    finally:
        module.TILE = before
    for at, alone in enumerate(rows()):
        assert [sample([alone], logits[step, at : at + 1], words)[0] for step in range(steps)] == [
            batch[at] for batch in batched
        ]


class _Words(Vocabulary):
    def __init__(self) -> None:
        pass

    def text_of(self, token: int) -> str:
        return f"<{token}>"


def test_answers_of_one_prompt_share_its_row(vocabulary: Vocabulary) -> None:
    made = choosers(SamplingParams(n=6, temperature=3.0, seed=4), [1])
    logits = torch.stack((LOGITS, LOGITS.flip(0)))
    shared = sample(made, logits, vocabulary, rows=[1] * 6)
    alone = choosers(SamplingParams(n=6, temperature=3.0, seed=4), [1])
    assert shared == [sample([each], logits[1:], vocabulary)[0] for each in alone]
    assert len(set(tokens(shared))) > 1


def test_penalties_see_the_prompt_or_only_the_answer(vocabulary: Vocabulary) -> None:
    assert tokens(draw(vocabulary, chooser(prompt=[3], repetition_penalty=2.0))) == [6]
    assert tokens(draw(vocabulary, chooser(prompt=[3], presence_penalty=2.0))) == [3]
    assert tokens(draw(vocabulary, chooser(presence_penalty=2.0), count=3)) == [3, 6, 2]
    assert tokens(draw(vocabulary, chooser(frequency_penalty=0.4), count=4)) == [3, 3, 6, 3]


def test_bias_changes_the_choice_and_not_the_log_probability(vocabulary: Vocabulary) -> None:
    (only,) = draw(vocabulary, chooser(logit_bias={0: 50.0}, logprobs=2))
    assert only.logprob is not None and only.token == only.logprob.token == 0
    expected = torch.log_softmax(LOGITS, -1)
    assert only.logprob.logprob == pytest.approx(float(expected[0]))
    assert [(id, value) for id, _, value in only.logprob.top] == [
        (3, pytest.approx(float(expected[3]))), (6, pytest.approx(float(expected[6]))),
    ]  # fmt: skip
    assert tokens(draw(vocabulary, chooser(logit_bias={3: -math.inf}))) == [6]


def test_the_cumulated_log_probability_is_that_of_the_tokens(vocabulary: Vocabulary) -> None:
    made = choosers(SamplingParams(n=1, best_of=2, temperature=1.0, seed=3), [])
    expected = torch.log_softmax(LOGITS, -1)
    for each in made:
        drawn = draw(vocabulary, each, count=5)
        assert all(sampled.logprob is None for sampled in drawn)
        assert each.cumulative == pytest.approx(float(expected[tokens(drawn)].sum()), abs=1e-4)


def test_half_precision_logits_are_scored_in_float32(vocabulary: Vocabulary) -> None:
    (only,) = draw(vocabulary, chooser(logprobs=0), LOGITS.bfloat16())
    assert only.logprob is not None
    assert only.logprob.logprob == pytest.approx(float(torch.log_softmax(LOGITS, -1)[3]), abs=1e-6)


def test_an_output_narrower_than_the_input_is_no_trouble(vocabulary: Vocabulary) -> None:
    made = chooser([9, 6], repetition_penalty=2.0, logit_bias={3: -10.0, 9: 1.0})
    assert tokens(draw(vocabulary, made)) == [2]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("params", [{}, {"temperature": 1.0}, {"logprobs": 1}])
def test_logits_that_are_not_finite_fail_their_row_alone(
    vocabulary: Vocabulary, value: float, params: dict[str, Any]
) -> None:
    logits = LOGITS.repeat(2, 1)
    logits[0, 4:] = value
    if value < 0:
        logits[0] = value
    made = [chooser(**params), chooser(**params)]
    failed, fine = sample(made, logits, vocabulary)
    assert isinstance(failed.error, DeviceFault) and failed.token == -1 and made[0].position == 0
    assert fine.error is None and fine == draw(vocabulary, chooser(**params))[0]


@pytest.mark.parametrize("params", [{"logit_bias": dict.fromkeys(range(8), -math.inf)}, {"repetition_penalty": 1e-45}])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_settings_that_leave_no_token_fail_their_row_alone(
    vocabulary: Vocabulary, params: dict[str, Any], temperature: float
) -> None:
    made = [chooser([3], temperature=temperature, **params), chooser(temperature=temperature)]
    failed, fine = sample(made, LOGITS.repeat(2, 1), vocabulary)
    assert isinstance(failed.error, BadArgument) and failed.error.name == next(iter(params))
    assert fine == draw(vocabulary, chooser(temperature=temperature))[0]


class Even:
    """A grammar of even tokens that ends after two and knows no token 6."""

    def __init__(self, taken: Sequence[int] = ()) -> None:
        self.taken = list(taken)

    @property
    def finished(self) -> bool:
        return len(self.taken) == 2

    def allows(self, token: int) -> bool:
        return token % 2 == 0

    def mask(self, size: int) -> Tensor:
        if len(self.taken) > 2:
            raise NotSupported("too long", why="test")
        return torch.arange(size) % 2 == 0

    def advance(self, token: int) -> None:
        if token == 6:
            raise NotSupported("no six", why="test")
        self.taken.append(token)

    def copy(self) -> Even:
        return Even(self.taken)


@pytest.mark.parametrize("params", [{}, {"temperature": 9.0, "seed": 2}, {"logprobs": 1}, {"repetition_penalty": 1.1}])
def test_a_grammar_comes_before_everything_else(vocabulary: Vocabulary, params: dict[str, Any]) -> None:
    made = Chooser(SamplingParams(logit_bias={6: -math.inf, 3: 50.0}, **params), [], 0, 0, Even())
    first, second, third, fourth = draw(vocabulary, made, count=4)
    assert first.token % 2 == second.token % 2 == 0 and made.constraint is not None
    assert (first.finished, second.finished, third.finished) == (False, True, False)
    assert isinstance(fourth.error, NotSupported)


def test_a_greedy_token_that_the_grammar_allows_needs_no_mask(vocabulary: Vocabulary) -> None:
    made = Chooser(SamplingParams(), [], 0, 0, Even([0, 0, 0]))
    assert tokens(draw(vocabulary, made, LOGITS.roll(1))) == [4]
    assert draw(vocabulary, made, LOGITS)[0].error is not None


def test_a_grammar_that_refuses_a_chosen_token_fails_the_row(vocabulary: Vocabulary) -> None:
    made = Chooser(SamplingParams(logit_bias={2: -9.0, 6: 9.0}), [], 0, 0, Even())
    assert isinstance(draw(vocabulary, made)[0].error, NotSupported)


def test_each_answer_has_its_own_state_of_the_grammar(vocabulary: Vocabulary) -> None:
    made = choosers(SamplingParams(n=2, temperature=1.0, seed=0, logit_bias={6: -math.inf}), [], Even())
    sample(made[:1], LOGITS.unsqueeze(0), vocabulary)
    assert [len(each.constraint.taken) for each in made if isinstance(each.constraint, Even)] == [1, 0]
