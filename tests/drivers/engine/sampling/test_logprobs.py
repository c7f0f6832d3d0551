"""Log probabilities against log_softmax."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llmos.drivers.engine.detokenizer import Vocabulary
from llmos.drivers.engine.sampling import logprobs
from llmos.drivers.engine.sampling.distribution import BLOCK
from llmos.drivers.engine.sampling.logprobs import Scored, prompt_logprobs

SIZE = 40


@pytest.mark.parametrize("tile", [1, 3 * SIZE, 1 << 20])
def test_those_of_a_prompt_are_the_log_softmax_at_its_tokens(
    vocabulary: Vocabulary, monkeypatch: pytest.MonkeyPatch, tile: int
) -> None:
    monkeypatch.setattr(logprobs, "TILE", tile)
    logits = torch.randn(7, SIZE, generator=torch.Generator().manual_seed(0)).bfloat16()
    following = [3, 0, 39, 5, 5, 11, 2]
    expected = torch.log_softmax(logits.float(), dim=-1)
    found = prompt_logprobs(logits, following, 3, vocabulary)
    assert [each.token for each in found] == following
    for at, each in enumerate(found):
        assert each.logprob == pytest.approx(float(expected[at, following[at]]), abs=1e-5)
        assert each.text == vocabulary.text_of(following[at])
        best = expected[at].topk(3)
        assert [value for _, _, value in each.top] == pytest.approx(best.values.tolist(), abs=1e-5)
        assert all(text == vocabulary.text_of(token) for token, text, _ in each.top)
    assert prompt_logprobs(logits[:2], following[:2], 3, vocabulary) == found[:2]


def test_no_alternatives_when_none_are_wanted(vocabulary: Vocabulary) -> None:
    (only,) = prompt_logprobs(torch.zeros(1, 4), [2], 0, vocabulary)
    assert only.top == () and only.logprob == pytest.approx(-1.3862944)


def test_equal_ones_come_in_order_of_their_ids_and_excluded_ones_not_at_all() -> None:
    scores = torch.tensor([[1.0, 2.0, 2.0, -torch.inf]])
    assert [token for token, _ in Scored(scores, [4]).top(0)] == [1, 2, 0]
    assert [token for token, _ in Scored(scores, [1]).top(0)] == [1]


@given(st.integers(0, 2**31), st.integers(1, 30), st.sampled_from([3, 70, 8 * BLOCK, 100 * BLOCK]))
def test_which_of_equal_ones_are_told_does_not_depend_on_how_many_are(seed: int, count: int, size: int) -> None:
    scores = torch.randn(2, size, generator=torch.Generator().manual_seed(seed)).mul(4).round()
    expected = sorted(range(size), key=lambda token: (-float(scores[1, token]), token))[:count]
    assert [token for token, _ in Scored(scores, [0, count]).top(1)] == expected
    assert Scored(scores[1:], [count]).top(0) == Scored(scores, [1, count]).top(1)
    assert Scored(scores, [0, count]).top(0) == []
