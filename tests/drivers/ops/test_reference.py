"""The reference ops against transformers' own logits processors, and against their definitions."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import (
    MinPLogitsWarper, RepetitionPenaltyLogitsProcessor, TopKLogitsWarper, TopPLogitsWarper,
)  # fmt: skip

from llmos.drivers.ops.reference import (
    filter_logits, penalize_logits, pool_states, register_reference, top_logprobs,
)  # fmt: skip
from llmos.drivers.ops.table import OpTable

different = st.lists(st.integers(-4000, 4000), min_size=2, max_size=40, unique=True).map(
    lambda values: torch.tensor([value / 200 for value in values])
)


@given(different, st.integers(0, 45), st.floats(0.01, 1.0), st.floats(0.0, 0.9))
def test_filters_keep_the_tokens_that_transformers_keeps(
    logits: torch.Tensor, top_k: int, top_p: float, min_p: float
) -> None:
    expected = logits[None]
    ids = torch.zeros(1, 1, dtype=torch.long)
    if top_k:
        expected = TopKLogitsWarper(top_k)(ids, expected)
    if top_p < 1.0:
        expected = TopPLogitsWarper(top_p)(ids, expected)
    if min_p:
        expected = MinPLogitsWarper(min_p)(ids, expected)
    ours = filter_logits(logits, top_k, top_p, min_p)
    disagree = ours.isinf() != expected[0].isinf()
    # The two add up from opposite ends: a token at the very edge may differ, and tokens that round to nothing.
    masses = torch.softmax(logits, -1)[disagree].tolist()
    assert not masses or (top_p < 1.0 and sum(masses) - max(masses) < 1e-5)
    assert not ours[logits.argmax()].isinf()
    assert torch.equal(ours[~ours.isinf()], logits[~ours.isinf()])


def test_filters_that_are_off_change_nothing() -> None:
    logits = torch.tensor([1.0, 2.0, 3.0])
    assert filter_logits(logits, 0, 1.0, 0.0) is logits
    assert torch.equal(filter_logits(logits, 3, 1.0, 0.0), logits)


def test_filters_act_in_order() -> None:
    """Top-p counts only what top-k left: of two equal shares of 0.5 it keeps one, of three thirds two."""
    logits = torch.tensor([0.02, 0.01, 0.0, -9.0])
    assert filter_logits(logits, 2, 0.5, 0.0).isfinite().tolist() == [True, False, False, False]
    assert filter_logits(logits, 3, 0.5, 0.0).isfinite().tolist() == [True, True, False, False]
    assert filter_logits(logits, 3, 1.0, 0.999).isfinite().tolist() == [True, False, False, False]


@given(different, st.floats(0.5, 2.0), st.data())
def test_repetition_penalty_is_that_of_transformers(logits: torch.Tensor, penalty: float, data: st.DataObject) -> None:
    tokens = data.draw(st.lists(st.integers(0, len(logits) - 1), min_size=1))
    seen = torch.zeros(len(logits), dtype=torch.bool)
    seen[tokens] = True
    expected = RepetitionPenaltyLogitsProcessor(penalty)(torch.tensor([tokens]), logits[None].clone())
    ours = penalize_logits(logits, seen, torch.zeros(len(logits)), penalty, 0.0, 0.0)
    assert torch.allclose(ours, expected[0])


def test_frequency_counts_and_presence_does_not() -> None:
    logits, seen = torch.zeros(3), torch.zeros(3, dtype=torch.bool)
    ours = penalize_logits(logits, seen, torch.tensor([0.0, 1.0, 3.0]), 1.0, 0.5, 0.25)
    assert ours.tolist() == [0.0, -0.75, -1.25]


def test_log_probabilities_are_a_softmax() -> None:
    logits = torch.log(torch.tensor([0.5, 0.2, 0.3]))
    logprob, ids, values = top_logprobs(logits, 1, 2)
    assert math.exp(logprob) == pytest.approx(0.2)
    assert ids == [0, 2]
    assert [math.exp(value) for value in values] == pytest.approx([0.5, 0.3])
    assert top_logprobs(logits, 0, 100)[1] == [0, 2, 1]


def test_pooling_sees_only_what_the_mask_keeps() -> None:
    states = torch.arange(12.0).view(2, 3, 2)
    mask = torch.tensor([[1, 1, 0], [0, 1, 1]])
    assert pool_states(states, mask, "mean").tolist() == [[1.0, 2.0], [9.0, 10.0]]
    assert pool_states(states, mask, "cls").tolist() == [[0.0, 1.0], [8.0, 9.0]]
    assert pool_states(states, mask, "last").tolist() == [[2.0, 3.0], [10.0, 11.0]]
    assert pool_states(states, torch.zeros(2, 3), "mean").tolist() == [[0.0, 0.0], [0.0, 0.0]]


def test_every_op_has_a_reference_that_serves_all_cases() -> None:
    table = OpTable()
    register_reference(table)
    for op in ("pool_states", "paged_attention", "rope_write", "linear", "lora_expand"):
        assert table.choose(op, {"device": "anything", "dtype": "any"}).implementation.name == "torch", op
