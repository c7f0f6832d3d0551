"""Several data sets in one run: each has its share of every epoch, and any batch can be had at any time."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from llmos.drivers.tuning.data.batches import Batches
from llmos.drivers.tuning.data.example import Example
from llmos.drivers.tuning.data.mixing import Mixture, shares
from training_data import recipe

SIZES = st.lists(st.integers(1, 40), min_size=1, max_size=5)
TEMPERATURES = st.sampled_from([1.0, 1.5, 3.0, math.inf])


def sets(sizes: Sequence[int]) -> list[Batches]:
    """Data sets with one row to a batch; the first token of a row is the number of its data set."""
    made = recipe(batch_size=1, packing=False)
    return [Batches([Example((of, n), (of, n)) for n in range(size)], made) for of, size in enumerate(sizes)]


@given(SIZES)
def test_shares_go_from_those_of_the_sizes_to_alike(sizes: list[int]) -> None:
    assert shares(sizes, 1.0) == pytest.approx([size / sum(sizes) for size in sizes])
    assert shares(sizes, math.inf) == pytest.approx([1 / len(sizes)] * len(sizes))
    roots = [math.sqrt(size) for size in sizes]
    assert shares(sizes, 2.0) == pytest.approx([root / sum(roots) for root in roots])


@given(SIZES, TEMPERATURES, st.integers(0, 3), st.integers(0, 2))
def test_each_has_its_share_of_every_epoch(sizes: list[int], temperature: float, seed: int, epoch: int) -> None:
    made = Mixture(sets(sizes), temperature, seed)
    assert len(made) == sum(sizes)
    drawn = [int(made[epoch * len(made) + n].input_ids[0, 0]) for n in range(len(made))]
    counts = Counter(drawn)
    assert tuple(counts[n] for n in range(len(sizes))) == made.counts
    for count, share in zip(made.counts, shares(sizes, temperature), strict=True):
        assert count == 1 or abs(count - share * sum(sizes)) < 1 + len(sizes)


@given(SIZES, TEMPERATURES, st.integers(0, 100))
def test_any_batch_can_be_had_at_any_time(sizes: list[int], temperature: float, position: int) -> None:
    straight, resumed = Mixture(sets(sizes), temperature, 4), Mixture(sets(sizes), temperature, 4)
    passed = [straight.place(n) for n in range(position + 1)]
    assert passed[position] == resumed.place(position)
    assert torch.equal(straight[position].input_ids, resumed[position].input_ids)
    for source in range(len(sizes)):
        own = [at for of, at in passed if of == source]
        assert own == list(range(len(own))), "none is left out or comes twice"


def test_by_size_every_row_comes_once_an_epoch_and_small_ones_oftener_when_alike() -> None:
    rows = Counter(tuple(batch.input_ids[0].tolist()) for batch in Mixture(sets([30, 10]), 1.0))
    assert set(rows.values()) == {1} and len(rows) == 40
    assert Mixture(sets([30, 10]), math.inf).counts == (20, 20)
    assert Mixture(sets([100, 1, 1]), 1.0).counts == (100, 1, 1)
    assert Mixture(sets([100, 1, 1]), 0.5).counts == (100, 1, 1), "nobody gets none"


def test_epochs_and_seeds_differ_in_order() -> None:
    made = Mixture(sets([10, 10]), 1.0, 0)
    first, second = ([made.place(e * 20 + n)[0] for n in range(20)] for e in (0, 1))
    assert first != second != [Mixture(sets([10, 10]), 1.0, 1).place(n)[0] for n in range(20)]
    with pytest.raises(IndexError):
        made[-1]
