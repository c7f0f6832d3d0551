"""What a mask allows is measured exactly, however far away it changes, and what is something else is refused."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import masking_utils

from llmos.drivers.engine.reach import Described, Reach, Refused, Rule, describe, measure

CONTEXT = 100_000


def rule_of(reach: Reach) -> Rule:
    """The library's own."""
    if reach.chunk:
        return masking_utils.chunked_causal_mask_function(reach.chunk, torch.zeros(1, dtype=torch.long))  # type: ignore[no-any-return]
    if reach.window:
        return masking_utils.sliding_window_causal_mask_function(reach.window)  # type: ignore[no-any-return]
    return masking_utils.causal_mask_function  # type: ignore[return-value]


@given(st.integers(1, CONTEXT - 1))
def test_a_window_is_measured_to_the_token(window: int) -> None:
    assert measure(rule_of(Reach(window=window)), CONTEXT) == Reach(window=window)


@given(st.integers(2, CONTEXT - 1))
def test_a_chunk_is_measured_to_the_token(chunk: int) -> None:
    assert measure(rule_of(Reach(chunk=chunk)), CONTEXT) == Reach(chunk=chunk)


@pytest.mark.parametrize("reach", [Reach(), Reach(window=CONTEXT), Reach(chunk=CONTEXT + 7)])
def test_what_the_context_does_not_reach_is_no_bound(reach: Reach) -> None:
    assert measure(rule_of(reach), CONTEXT) == Reach()


@pytest.mark.parametrize("context", [1, 2, 3])
def test_a_small_context_is_no_trouble(context: int) -> None:
    assert measure(rule_of(Reach()), context) == Reach()


@given(st.sampled_from([Reach(), Reach(window=5), Reach(chunk=4)]), st.integers(0, 60))
def test_what_it_says_is_what_the_library_sees(reach: Reach, query: int) -> None:
    keys, zero = torch.arange(query + 5), torch.tensor(0)
    seen = rule_of(reach)(zero, zero, torch.tensor(query), keys).expand_as(keys)
    assert torch.equal(reach.sees(torch.tensor(query), keys), seen)
    assert int(seen.nonzero()[0]) == reach.first(query)


def test_other_masks_are_refused() -> None:
    causal = rule_of(Reach())
    others: list[Rule] = [
        lambda b, h, q, k: k <= q + 1,
        lambda b, h, q, k: (k <= q) & (k != 3),
        lambda b, h, q, k: (k <= q) & ((k < 4) | (k > q - 8)),
        lambda b, h, q, k: (k <= q) & (k // 9 >= q // 9 - 1),
        masking_utils.bidirectional_mask_function,  # type: ignore[list-item]
    ]
    assert measure(causal, CONTEXT) == Reach()
    for rule in others:
        with pytest.raises(Refused, match="mask"):
            measure(rule, CONTEXT)


def test_a_part_of_what_stands_for_a_mask_is_all_of_it() -> None:
    made = describe(rule_of(Reach(window=3)), batch_size=1)
    assert isinstance(made, Described) and made[:, :, 0, :] is made
