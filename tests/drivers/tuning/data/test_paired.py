"""Which rows without labels stand beside which batch depends on rows, recipe and seed alone."""

from __future__ import annotations

from typing import Any

import torch
from llmos.drivers.tuning.data.batches import Batch, Batches
from llmos.drivers.tuning.data.example import Example
from llmos.drivers.tuning.data.paired import Paired
from llmos.drivers.tuning.data.unlabelled import Pool
from llmos.drivers.tuning.recipe import Recipe

LABELLED = [Example([100 + n] * (1 + n % 3), (n % 2,), whole=True) for n in range(6)]
GIVEN = [Example([n] * (1 + n % 4), (0,), whole=True) for n in range(1, 11)]
CHANGED = [[Example([*each.tokens, 50 + copy], (0,), whole=True) for copy in range(2)] for each in GIVEN]
POOL = Pool(GIVEN, CHANGED, [f"raw:{n}" for n in range(10)], "d")


def paired(rows: int = 4, seed: int = 0) -> Paired:
    asked: dict[str, Any] = {"files": ["raw"], "rows": rows}
    fields = {"method": "lora", "objective": "classification", "batch_size": 2, "seed": seed}
    recipe = Recipe.of({**fields, "options": {"unlabelled": asked}})
    return Paired(Batches(LABELLED, recipe, room=0), POOL, recipe)


def first_of(batch: Batch) -> list[int]:
    return [int(row[0]) for row in batch.input_ids]


def test_each_batch_has_rows_and_the_same_changed() -> None:
    batches = paired()
    assert len(batches) == 3 == len(list(batches))
    for batch, count in zip(batches, (4, 4, 2), strict=True):
        given, changed = batch.others
        assert len(batch.input_ids) == 2 and len(given.input_ids) == count
        assert first_of(given) == first_of(changed) and min(first_of(batch)) >= 100


def test_all_rows_have_their_turn_and_then_another_copy() -> None:
    batches = paired(rows=5)
    epochs = [[batches[position].others for position in range(start, start + 2)] for start in (0, 2)]
    for epoch in epochs:
        assert sorted(n for given, _ in epoch for n in first_of(given)) == list(range(1, 11))
    lasts = [{int(row.max()) for _, changed in epoch for row in changed.input_ids} for epoch in epochs]
    assert lasts == [{50}, {51}]


def test_any_batch_can_be_had_at_any_time() -> None:
    one, other = paired(), paired()
    assert torch.equal(one[7].others[1].input_ids, [other[n] for n in (3, 7)][1].others[1].input_ids)
    assert any(first_of(paired(seed=1)[n].others[0]) != first_of(one[n].others[0]) for n in range(3))


def test_no_batch_has_more_tokens_than_the_largest() -> None:
    batches = paired()
    [most] = batches.largest()
    assert most.tokens >= max(batches[n].tokens for n in range(12))
    assert len(most.input_ids) == 2 and len(batches.largest(2)[0].others[0].input_ids) == 8
