"""Models with attention of their own on pages: rows of a step, padded or not, have the logits that they have alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
import transformers

from llmos.drivers.engine import gathered
from llmos.drivers.engine.gathered import Gathering
from llmos.drivers.engine.paged import PagedModel
from llmos.drivers.engine.pages import PagePool
from llmos.drivers.engine.reach import Refused
from llmos.drivers.engine.steps import Row, RowStep, StepPlan
from llmos.drivers.ops.table import OpTable

TOKENS = [int(token) for token in torch.randint(100, (40,), generator=torch.Generator().manual_seed(0))]
OTHER = TOKENS[::-1]
KINDS: dict[str, dict[str, Any]] = {
    "gptj": {"n_embd": 32, "n_layer": 2, "n_head": 4, "rotary_dim": 4, "n_positions": 64},
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 4},
    "gpt_neo": {
        "hidden_size": 32, "num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]],
        "window_size": 9, "max_position_embeddings": 64,
    },
    "roformer": {
        "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64,
        "max_position_embeddings": 64, "is_decoder": True, "embedding_size": 32,
    },
}  # fmt: skip
BATCHED = ("gptj", "bloom", "gpt_neo")


def of_kind(kind: str) -> Any:
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(kind, vocab_size=100, **KINDS[kind])
    module = transformers.AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)
    for parameter in module.parameters():
        parameter.add_(0.2 * torch.randn(parameter.shape))
    return module


def plain(module: Any, tokens: Sequence[int]) -> torch.Tensor:
    with torch.inference_mode():
        logits: torch.Tensor = module(torch.tensor([tokens]), use_cache=False).logits[0]
    return logits


def gathering(module: Any, padded: bool) -> Gathering:
    return replace(gathered.gathering_of(module), padded=padded)


def on_pages(module: Any, layers: Gathering, ops: OpTable) -> PagedModel:
    pool = PagePool(layers.shapes, 12, torch.float32)
    for keys, _values in pool.views():
        keys.fill_(torch.nan)  # what was never written must not be felt
    return PagedModel(module, layers, pool, ops)


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_parts_of_prompts_and_single_tokens_in_one_step(kind: str, ops: OpTable) -> None:
    module = of_kind(kind)
    model = on_pages(module, gathering(module, kind in BATCHED), ops)
    one, two, three = Row("a", TOKENS, pages=[5, 0, 9]), Row("b", OTHER, pages=[1, 2, 3]), Row("c", TOKENS, pages=[4])
    model.run(StepPlan([RowStep(one, 0, 38, 0), RowStep(two, 0, 7, 0)]))
    step = [RowStep(one, 38, 1, 1), RowStep(three, 0, 12, 3), RowStep(two, 7, 1, 1)]
    logits = model.run(StepPlan(step))
    ours, theirs = plain(module, TOKENS), plain(module, OTHER)
    close(logits, torch.cat([ours[38:39], ours[9:12], theirs[7:8]]))
    assert model.run(StepPlan([RowStep(two, 8, 3, 0)])).shape[0] == 0
    close(model.run(StepPlan([RowStep(one, 39, 1, 1), RowStep(two, 11, 1, 1)])), torch.stack([ours[39], theirs[11]]))


def test_rows_that_decode_go_in_one_run_where_they_may(ops: OpTable) -> None:
    module = of_kind("gptj")
    one, two = Row("a", TOKENS, pages=[5]), Row("b", OTHER, pages=[1])
    for padded, expected in ((True, [[one, two]]), (False, [[one], [two]])):
        model = on_pages(module, gathering(module, padded), ops)
        model.run(StepPlan([RowStep(one, 0, 4, 0), RowStep(two, 0, 9, 0)]))
        runs: list[list[Row]] = []
        model.between(lambda rows, runs=runs: runs.append([step.row for step in rows]))
        model.run(StepPlan([RowStep(one, 4, 1, 1), RowStep(two, 9, 1, 1)]))
        assert runs == expected


def test_drafts_follow_the_tokens(ops: OpTable) -> None:
    module = of_kind("gptj")
    model = on_pages(module, gathering(module, True), ops)
    row = Row("a", TOKENS[:21], pages=[5, 0], drafts=TOKENS[21:24])
    model.run(StepPlan([RowStep(row, 0, 20, 0)]))
    close(model.run(StepPlan([RowStep(row, 20, 4, 4, drafts=3)])), plain(module, TOKENS[:24])[20:])


def test_a_prefix_in_shared_pages_is_read(ops: OpTable) -> None:
    module = of_kind("bloom")
    model = on_pages(module, gathering(module, True), ops)
    model.run(StepPlan([RowStep(Row("a", TOKENS, pages=[4, 5, 6]), 0, 40, 0)]))
    other = TOKENS[:16] + OTHER[:10]
    logits = model.run(StepPlan([RowStep(Row("b", other, pages=[4, 7]), 16, 10, 10)]))
    close(logits, plain(module, other)[16:])


def test_padding_that_a_model_does_not_understand_differs(ops: OpTable) -> None:
    """roformer counts positions from the length of the cache, which in a padded batch is that of the longest row."""
    module = of_kind("roformer")
    model = on_pages(module, gathering(module, True), ops)
    one, two = Row("a", TOKENS, pages=[5, 0, 9]), Row("b", OTHER, pages=[1, 2, 3])
    model.run(StepPlan([RowStep(one, 0, 38, 0), RowStep(two, 0, 7, 0)]))
    logits = model.run(StepPlan([RowStep(one, 38, 1, 1), RowStep(two, 7, 1, 1)]))
    close(logits[0], plain(module, TOKENS)[38])
    assert (logits[1] - plain(module, OTHER)[7]).abs().max() > 0.1


def test_calls_in_another_order_than_noted_fail(ops: OpTable) -> None:
    module = of_kind("gptj")
    layers = gathering(module, True)
    model = on_pages(module, replace(layers, calls=list(reversed(layers.calls))), ops)
    with pytest.raises(RuntimeError, match="out of turn"):
        model.run(StepPlan([RowStep(Row("a", TOKENS, pages=[5]), 0, 4, 1)]))


def test_what_keeps_nothing_is_refused() -> None:
    config = transformers.OpenAIGPTConfig(n_embd=32, n_layer=1, n_head=2, vocab_size=100)
    with pytest.raises(Refused, match="no cache"):
        gathered.gathering_of(transformers.AutoModelForCausalLM.from_config(config))
