"""Packing loses nothing and mixes nothing."""

from __future__ import annotations

import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from llmos.drivers.tuning.data import packing
from tiny_models import VOCABULARY, config_of, random_module

LENGTHS = st.lists(st.integers(1, 40), min_size=1, max_size=60)


@given(LENGTHS, st.integers(40, 90), st.integers(-5, 5))
def test_every_example_stands_whole_in_one_row(lengths: list[int], room: int, seed: int) -> None:
    rows = packing.pack(lengths, room, seed)
    assert sorted(number for row in rows for number in row) == list(range(len(lengths)))
    assert all(sum(lengths[number] for number in row) <= room for row in rows)
    assert rows == packing.pack(lengths, room, seed)


@given(LENGTHS)
def test_rows_are_well_filled(lengths: list[int]) -> None:
    """No two rows could be one."""
    filled = sorted(sum(lengths[number] for number in row) for row in packing.pack(lengths, 64))
    assert len(filled) == 1 or filled[0] + filled[1] > 64


def test_chance_settles_which_of_equal_length_are_neighbours() -> None:
    first, second = (packing.pack([4] * 32, 16, seed) for seed in (0, 1))
    assert first != second and first != tuple(tuple(range(n, n + 4)) for n in range(0, 32, 4))


def test_an_example_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="example 1 has 9 tokens, a row has 8"):
        packing.pack([3, 9], 8)


def test_the_order_is_the_same_everywhere() -> None:
    assert packing.order(10, 7, 3) == [2, 9, 0, 8, 5, 7, 6, 3, 1, 4]
    assert packing.order(10, 7, 4) != packing.order(10, 7, 3) != packing.order(10, 8, 3)


def test_positions_start_again_at_each_document() -> None:
    documents = torch.tensor([[0, 0, 0, 1, 2, 2, -1, -1], [0, 0, 0, 0, 0, 0, 0, 0]])
    assert packing.positions_of(documents).tolist() == [[0, 1, 2, 0, 0, 1, 0, 1], [0, 1, 2, 3, 4, 5, 6, 7]]


def test_the_mask_is_a_block_for_each_document() -> None:
    mask = packing.mask_of(torch.tensor([[0, 0, 1, -1]]))
    assert mask.int().tolist() == [[[[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]]]
    both = packing.mask_of(torch.tensor([[0, 0, 1, -1]]), causal=False)
    assert both.int().tolist() == [[[[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]]]


@pytest.mark.parametrize("name", ["llama", "mistral", "gpt2", "gemma3_text"])
def test_packed_examples_answer_as_if_alone(name: str) -> None:
    """Also behind a sliding window; by positions alone, and by the mask for models that look at all before."""
    module = random_module(config_of(name))
    assert packing.crosses(module, VOCABULARY) == ""
    lengths = (20, 1, 30, 7)
    texts = [torch.randint(0, VOCABULARY, (1, length)) for length in lengths]
    documents = torch.cat([torch.full((1, length), n) for n, length in enumerate(lengths)], dim=1)
    given = {"input_ids": torch.cat(texts, dim=1), "position_ids": packing.positions_of(documents), "use_cache": False}
    with torch.no_grad():
        alone = torch.cat([module(text, use_cache=False).logits for text in texts], dim=1)
        torch.testing.assert_close(module(**given).logits, alone, rtol=1e-4, atol=1e-4)
        if name in ("llama", "gpt2"):
            masked = module(**given, attention_mask=packing.mask_of(documents)).logits
            torch.testing.assert_close(masked, alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["qwen3_next", "bloom", "opt"])
def test_models_that_mix_examples_are_found_out(name: str) -> None:
    """By a state that runs on, or by positions of their own."""
    assert "change each other" in packing.crosses(random_module(config_of(name)), VOCABULARY)


def test_a_model_is_left_as_it_was_found() -> None:
    module = transformers.AutoModelForCausalLM.from_config(config_of("llama"))
    module.train()
    packing.crosses(module, VOCABULARY)
    assert module.training
