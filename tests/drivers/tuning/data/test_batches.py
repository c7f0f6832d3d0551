"""Batches are a pure function of examples, recipe and position."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from llmos.drivers.tuning.data.batches import Batch, Batches, batches, collate, steps_of
from llmos.drivers.tuning.data.example import IGNORED, Example
from llmos.drivers.tuning.recipe import Recipe

LENGTHS = st.lists(st.integers(1, 12), min_size=1, max_size=30)


def made(lengths: list[int]) -> list[Example]:
    """Examples whose tokens tell which they are and where."""
    return [Example(range(100 * n, 100 * n + k), range(100 * n, 100 * n + k)) for n, k in enumerate(lengths, 1)]


def texts_of(batch: Batch) -> list[list[int]]:
    """The documents of a batch."""
    found = []
    for ids, documents in zip(batch.input_ids, batch.documents, strict=True):
        found += [ids[documents == n].tolist() for n in range(int(documents.max()) + 1)]
    return found


def same(first: Batch, second: Batch) -> bool:
    names = ("input_ids", "position_ids", "labels", "documents")
    return all(torch.equal(getattr(first, name), getattr(second, name)) for name in names)


@given(LENGTHS, st.integers(1, 5), st.booleans(), st.integers(0, 3), st.integers(0, 2))
def test_each_epoch_has_every_token_once(lengths: list[int], size: int, packing: bool, seed: int, epoch: int) -> None:
    examples = made(lengths)
    recipe = Recipe("lora", batch_size=size, packing=packing, seed=seed)
    found = [text for batch in batches(examples, recipe, epoch) for text in texts_of(batch)]
    assert sorted(found) == [list(example.tokens) for example in examples]


@given(LENGTHS, st.booleans(), st.integers(0, 50))
def test_any_batch_can_be_had_at_any_time(lengths: list[int], packing: bool, position: int) -> None:
    recipe = Recipe("lora", batch_size=2, packing=packing)
    straight, resumed = Batches(made(lengths), recipe), Batches(made(lengths), recipe)
    passed = [straight[n] for n in range(position + 1)]
    assert same(passed[position], resumed[position])


@given(LENGTHS)
def test_only_what_follows_within_an_example_is_learned(lengths: list[int]) -> None:
    for batch in Batches(made(lengths), Recipe("lora", max_length=16)):
        learned = batch.labels != IGNORED
        assert torch.equal(learned, (batch.documents >= 0) & (batch.position_ids > 0))
        assert torch.equal(batch.labels[learned], batch.input_ids[learned])
        assert batch.tokens == int(batch.attention_mask.sum())


def test_epochs_differ_in_order_and_evaluation_is_in_order() -> None:
    examples, recipe = made([3] * 20), Recipe("lora", batch_size=4, packing=False)
    first, second = ([texts_of(batch) for batch in batches(examples, recipe, epoch)] for epoch in (0, 1))
    assert first != second
    straight = [text for batch in Batches(examples, recipe, shuffled=False) for text in texts_of(batch)]
    assert straight == [list(example.tokens) for example in examples]
    assert len(Batches(examples, recipe)) == 5
    with pytest.raises(IndexError):
        Batches(examples, recipe)[-1]


def test_a_row_is_as_long_as_the_recipe_or_the_longest_example_says() -> None:
    examples = made([3] * 20)
    assert Batches(examples, Recipe("lora")).room == 3
    assert Batches(examples, Recipe("lora", max_length=9)).room == 9
    assert Batches(examples, Recipe("lora", max_length=9), room=12).room == 12
    assert Batches(examples, Recipe("lora", max_length=9), room=0).room == 0
    assert len(Batches(examples, Recipe("lora", max_length=9), room=0).rows) == 20
    assert Batches(examples, Recipe("lora", max_length=9))[0].packed
    assert not Batches(examples, Recipe("lora", packing=False))[0].packed


@pytest.mark.parametrize(
    ("labels", "shape", "dtype"),
    [((2,), (3,), torch.int64), ((0.5,), (3,), torch.float32), ((1.0, 0.0), (3, 2), torch.float32),
     ((0, 1), (3, 2), torch.int64)],
)  # fmt: skip
def test_labels_of_rows(labels: tuple[float, ...], shape: tuple[int, ...], dtype: torch.dtype) -> None:
    """Also where there happen to be as many as tokens."""
    every = Batches([Example((5,) * len(labels), labels, whole=True, kinds=(0,) * len(labels))] * 3, Recipe("lora"))
    batch = every[0]
    assert every.room == 0 and batch.labels.shape == shape and batch.labels.dtype == dtype
    assert batch.kinds is not None and batch.kinds.shape == batch.input_ids.shape


def test_further_texts_become_batches_beside() -> None:
    near, far = Example((4, 5), (IGNORED, 5)), Example((6,), (6,))
    batch = collate([[Example((1, 2, 3), (1, 2, 3), others=(near, far))]] * 2, padding=9).to("cpu")
    assert [tuple(other.input_ids.shape) for other in batch.others] == [(2, 2), (2, 1)]
    assert batch.others[0].labels.tolist() == [[IGNORED, 5]] * 2
    assert batch.tokens == 2 * (3 + 2 + 1)


def test_the_first_token_is_learned_where_labels_are_at_their_own_tokens() -> None:
    """What an encoder reads and a decoder writes: the first token of an answer is to be said, too."""
    told = Example((4, 5), (4, 5), aligned=True)
    batch = collate([[Example((1, 2), (IGNORED, IGNORED), others=(told,), aligned=True)]])
    assert batch.others[0].labels.tolist() == [[4, 5]]
    assert collate([[Example((4, 5), (4, 5))]]).labels.tolist() == [[IGNORED, 5]]


def test_only_causal_texts_are_packed() -> None:
    """Others look at all that stands in their row."""
    examples = made([3] * 20)
    assert Batches(examples, Recipe("lora", objective="masked-lm", max_length=9)).room == 0


def test_steps_of_a_run() -> None:
    assert steps_of(Recipe("lora", epochs=2), 5) == 10
    assert steps_of(Recipe("lora", epochs=2, accumulation=4), 5) == 3
    assert steps_of(Recipe("lora", epochs=0.5), 5) == 3
    assert steps_of(Recipe("lora", epochs=0.01), 5) == 1
    assert steps_of(Recipe("lora", epochs=9, max_steps=7), 5) == 7
    assert steps_of(Recipe("lora", max_steps=70), 5) == 70
