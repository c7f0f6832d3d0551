"""Models that keep states: rows of a step have the logits that they have alone, whatever is run, undone or lost."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from architectures.build import config_of, random_module

from llmos.drivers.engine import gathered, states
from llmos.drivers.engine.paged import PagedModel
from llmos.drivers.engine.pages import PagePool
from llmos.drivers.engine.reach import Refused
from llmos.drivers.engine.steps import Row, RowStep, StepPlan
from llmos.drivers.ops.table import OpTable

TOKENS, OTHER = torch.randint(7, 300, (2, 40), generator=torch.Generator().manual_seed(0)).tolist()
KINDS = ("mamba", "jamba", "lfm2", "falcon_h1", "qwen3_next")
BATCHED = ("jamba", "lfm2", "falcon_h1", "qwen3_next")


def of_kind(kind: str, ops: OpTable) -> tuple[Any, PagedModel]:
    module = random_module(config_of(kind)).requires_grad_(False)
    found = gathered.gathering_of(module, states.fresh_layers(module))
    layers = replace(found, padded=kind in BATCHED)
    return module, PagedModel(module, layers, PagePool(layers.shapes, 12, torch.float32), ops)


def plain(module: Any, tokens: Sequence[int]) -> torch.Tensor:
    with torch.inference_mode():
        logits: torch.Tensor = module(torch.tensor([tokens]), use_cache=False).logits[0]
    return logits


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    spread = float(expected.max() - expected.min())
    assert (found - expected).abs().max() < 1e-4 * spread


def rows() -> tuple[Row, Row]:
    return Row("a", list(TOKENS), pages=[5, 0, 9]), Row("b", list(OTHER), pages=[1, 2, 3])


@pytest.mark.parametrize("kind", KINDS)
def test_rows_that_join_and_leave_answer_as_alone(kind: str, ops: OpTable) -> None:
    module, model = of_kind(kind, ops)
    ours, theirs = plain(module, TOKENS), plain(module, OTHER)
    one, two = rows()
    close(model.run(StepPlan([RowStep(one, 0, 30, 2)])), ours[28:30])
    close(model.run(StepPlan([RowStep(one, 30, 1, 1), RowStep(two, 0, 9, 1)])), torch.stack([ours[30], theirs[8]]))
    for at in range(3):
        logits = model.run(StepPlan([RowStep(one, 31 + at, 1, 1), RowStep(two, 9 + at, 1, 1)]))
        close(logits, torch.stack([ours[31 + at], theirs[9 + at]]))
    close(model.run(StepPlan([RowStep(two, 12, 1, 1)])), theirs[12:13])
    logits = model.run(StepPlan([RowStep(two, 13, 1, 1), RowStep(one, 34, 1, 1)]))
    close(logits, torch.stack([theirs[13], ours[34]]))


def test_guesses_that_were_wrong_are_undone(ops: OpTable) -> None:
    module, model = of_kind("jamba", ops)
    ours = plain(module, TOKENS)
    row = Row("a", TOKENS[:21], pages=[5, 0, 9], drafts=[TOKENS[21], 9, 9])
    model.run(StepPlan([RowStep(row, 0, 20, 0)]))
    logits = model.run(StepPlan([RowStep(row, 20, 4, 4, drafts=3)]))
    close(logits[:2], ours[20:22])
    row.tokens, row.drafts = list(TOKENS), []
    close(model.run(StepPlan([RowStep(row, 22, 1, 1)])), ours[22:23])


@pytest.mark.parametrize("count", [2, states.FEW, states.FEW + 5])
def test_several_tokens_may_follow(count: int, ops: OpTable) -> None:
    module, model = of_kind("mamba", ops)
    row, _ = rows()
    model.run(StepPlan([RowStep(row, 0, 20, 0)]))
    close(model.run(StepPlan([RowStep(row, 20, count, 2)])), plain(module, TOKENS)[18 + count : 20 + count])
    close(model.run(StepPlan([RowStep(row, 20 + count, 1, 1)])), plain(module, TOKENS)[20 + count :][:1])


def test_a_row_whose_state_is_lost_starts_over(ops: OpTable) -> None:
    module, model = of_kind("jamba", ops)
    row, _ = rows()
    model.run(StepPlan([RowStep(row, 0, 20, 0)]))
    again = replace(row)
    close(model.run(StepPlan([RowStep(again, 20, 5, 2)])), plain(module, TOKENS)[23:25])


def test_a_step_may_be_done_again(ops: OpTable) -> None:
    module, model = of_kind("jamba", ops)
    row, _ = rows()
    model.run(StepPlan([RowStep(row, 0, 20, 0)]))
    for _again in range(2):
        close(model.run(StepPlan([RowStep(row, 20, 1, 1)])), plain(module, TOKENS)[20:21])


def test_states_are_counted_and_go_with_their_rows(ops: OpTable) -> None:
    _module, model = of_kind("mamba", ops)
    one, two = rows()
    assert model.state_bytes == 0
    model.run(StepPlan([RowStep(one, 0, 5, 1)]))
    of_one = model.state_bytes
    model.run(StepPlan([RowStep(two, 0, 9, 1)]))
    assert model.state_bytes == 2 * of_one > 0
    del two
    gc.collect()
    assert model.state_bytes == of_one


def test_a_state_that_is_mixed_up_would_differ(ops: OpTable, monkeypatch: pytest.MonkeyPatch) -> None:
    module, model = of_kind("jamba", ops)
    one, two = rows()
    model.run(StepPlan([RowStep(one, 0, 20, 0), RowStep(two, 0, 9, 0)]))
    right = states._join
    monkeypatch.setattr(states, "_join", lambda layers, known: right(layers, known[::-1]))
    logits = model.run(StepPlan([RowStep(one, 20, 1, 1), RowStep(two, 9, 1, 1)]))
    with pytest.raises(AssertionError):
        close(logits, torch.stack([plain(module, TOKENS)[20], plain(module, OTHER)[9]]))


@pytest.mark.parametrize(("kind", "why"), [("rwkv", "keeps no state"), ("deepseek_v4", "DeepseekV4")])
def test_states_of_another_kind_are_refused(kind: str, why: str) -> None:
    with pytest.raises(Refused, match=why):
        states.fresh_layers(random_module(config_of(kind)))
