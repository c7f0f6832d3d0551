"""The drafter alone: what it proposes is what its model would say, whatever became of its proposals before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tiny_models import CONTEXT, PROMPT, greedy

from llmos.drivers.contract import SamplingParams
from llmos.drivers.engine import attention, ladder
from llmos.drivers.engine.blocks import BlockManager
from llmos.drivers.engine.drafting import Ask, Drafter
from llmos.drivers.engine.paged import PagedModel
from llmos.drivers.engine.pages import PagePool
from llmos.drivers.engine.sampling.chooser import Chooser
from llmos.drivers.ops.table import OpTable

SIZE = 320


@pytest.fixture
def module(llama: Path) -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(llama).eval()


@pytest.fixture
def plain(llama: Path) -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(llama).eval()


def drafter_of(module: Any, ops: OpTable, pages: int = 64, **options: int) -> Drafter:
    module.set_attn_implementation(attention.NAME)
    layers = ladder.paged_layers(module, CONTEXT)
    pool = PagePool(layers.shapes, pages, torch.float32)
    limits = {"context": CONTEXT, "vocabulary": SIZE, "chunk": 512} | options
    return Drafter(PagedModel(module, layers, pool, ops), BlockManager(pages), **limits)


def ask(tokens: Any, id: str = "a", wanted: int = 4, **sampling: Any) -> Ask:
    return Ask(id, list(tokens), Chooser(SamplingParams(**sampling), [], 1), wanted)


def test_it_proposes_its_own_greedy_answer_whatever_was_right(module: Any, plain: Any, ops: OpTable) -> None:
    drafter = drafter_of(module, ops)
    tokens = list(PROMPT)
    for right in (0, 4, 2, 1, 3, 4, 0):
        (made,) = drafter.guess([ask(tokens)], SIZE)
        assert made.tokens == greedy(plain, tokens, 4)[0] and made.probabilities is None
        tokens += [*made.tokens[:right], (made.tokens[min(right, 3)] + 1) % SIZE]


def test_rows_of_a_batch_do_not_see_each_other(module: Any, plain: Any, ops: OpTable) -> None:
    drafter = drafter_of(module, ops)
    asks = [ask(PROMPT[at:], str(at), wanted=at + 1) for at in range(4)]
    for one, made in zip(asks, drafter.guess(asks, SIZE), strict=True):
        assert made.tokens == greedy(plain, one.tokens, one.wanted)[0]


def test_drawn_guesses_come_with_what_they_were_drawn_from(module: Any, plain: Any, ops: OpTable) -> None:
    drafter = drafter_of(module, ops)
    one = ask(PROMPT, temperature=1.5)
    (made,) = drafter.guess([one], SIZE)
    assert made.probabilities is not None and made.probabilities.shape == (4, SIZE)
    with torch.inference_mode():
        logits = plain(torch.tensor([[*PROMPT, *made.tokens[:3]]])).logits[0, -4:]
    torch.testing.assert_close(made.probabilities, torch.softmax(logits / 1.5, dim=-1), atol=1e-5, rtol=1e-3)


def test_a_long_text_is_read_in_parts_before_anything_is_guessed(module: Any, plain: Any, ops: OpTable) -> None:
    drafter = drafter_of(module, ops, chunk=10)
    short, long = ask(PROMPT[:5], "short"), ask(PROMPT, "long")
    seen = [[len(made.tokens) for made in drafter.guess([long, short], SIZE)] for _ in range(5)]
    assert seen == [[0, 4], [0, 4], [0, 4], [4, 4], [4, 4]], "five tokens of the long one, then nine each"
    assert drafter.guess([long], SIZE)[0].tokens == greedy(plain, PROMPT, 4)[0]


def test_what_it_cannot_read_it_does_not_guess(module: Any, ops: OpTable) -> None:
    drafter = drafter_of(module, ops, vocabulary=300)
    strange, known = drafter.guess([ask([*PROMPT, 310], "a"), ask(PROMPT[:8], "b")], SIZE)
    assert strange.tokens == [] and len(known.tokens) == 4
    full = [token for at in range(CONTEXT - 3) for token in [PROMPT[at % 10]]]
    assert len(drafter.guess([ask(full, "c")], SIZE)[0].tokens) == 4
    assert drafter.guess([ask([*full, 1], "c")], SIZE)[0].tokens == []
    drafter.forget("b")
    assert drafter._blocks.used == 0


def test_without_pages_nothing_is_guessed_until_some_are_free(module: Any, ops: OpTable) -> None:
    drafter = drafter_of(module, ops, pages=3)
    first = ask(PROMPT, "a")
    assert [len(made.tokens) for made in drafter.guess([first, ask(PROMPT[::-1], "b")], SIZE)] == [4, 0]
    drafter.forget("a")
    assert len(drafter.guess([ask(PROMPT[::-1], "b")], SIZE)[0].tokens) == 4


def test_guesses_are_tokens_that_the_other_model_has(module: Any, ops: OpTable) -> None:
    drafter = drafter_of(module, ops)
    for temperature in (0.0, 2.0):
        (made,) = drafter.guess([ask(PROMPT, f"t{temperature}", wanted=8, temperature=temperature)], 50)
        assert len(made.tokens) == 8 and max(made.tokens) < 50


def test_logits_that_are_not_finite_are_no_guess(module: Any, ops: OpTable) -> None:
    drafter = drafter_of(module, ops)
    module.lm_head.weight.data.fill_(float("nan"))
    assert drafter.guess([ask(PROMPT), ask(PROMPT, "b", temperature=1.0)], SIZE)[1].tokens == []
    assert drafter.bytes == drafter._model.pool.bytes > 0
