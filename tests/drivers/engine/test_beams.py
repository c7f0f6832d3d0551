"""Beam search is the library's, also in a conversation and beside requests on pages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tiny_models import PROMPT, ask, choice, done, finish

from llmos.drivers.contract import ChunkEvent
from llmos.drivers.engine.engine import Engine
from llmos.syscalls.errors import BadArgument


@pytest.fixture(scope="module")
def model(llama: Path) -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(llama)


def searched(model: Any, prompt: Any, beams: int, count: int) -> list[int]:
    ids = torch.tensor([list(prompt)])
    found = model.generate(
        ids, attention_mask=torch.ones_like(ids), num_beams=beams, do_sample=False, max_new_tokens=count,
        eos_token_id=None, pad_token_id=0,
    )  # fmt: skip
    return [int(token) for token in found[0, len(prompt) :]]


def test_the_best_beam_is_that_of_generate(engine: Engine, model: Any) -> None:
    expected = searched(model, PROMPT, 4, 10)
    result = done(engine, ask(PROMPT, beams=4, max_tokens=10))
    assert (list(result.choices[0].tokens), result.choices[0].reason) == (expected, "length")
    assert expected != choice(engine, ask(PROMPT, max_tokens=10)).tokens
    assert (result.new_tokens, result.prompt_tokens) == (10, len(PROMPT))


def test_a_search_in_a_conversation_goes_on_from_it(engine: Engine, model: Any) -> None:
    engine.open_context("c", "m", "", 0)
    first = done(engine, ask(PROMPT[:9], context="c", max_tokens=3)).choices[0].tokens
    asked = [*PROMPT[:9], *first, 5]
    second = done(engine, ask([5], context="c", beams=3, max_tokens=6)).choices[0].tokens
    assert list(second) == searched(model, asked, 3, 6)
    assert engine._conversations["c"].tokens == [*asked, *second]
    third = choice(engine, ask([7], context="c", max_tokens=4))
    assert third == choice(engine, ask([*asked, *second, 7], max_tokens=4))


def test_stop_strings_and_streams_work_at_its_end(engine: Engine) -> None:
    text = choice(engine, ask(PROMPT, beams=3, max_tokens=12)).text
    stop = next(letter for letter in text[2:] if letter.isalnum())
    *chunks, _ = finish(engine, ask(PROMPT, beams=3, max_tokens=12, stop=[stop], stream=True))["r"]
    assert [chunk.text for chunk in chunks if isinstance(chunk, ChunkEvent)] == [text[: text.index(stop)]]


def test_what_does_not_go_with_beams_is_said(engine: Engine) -> None:
    with pytest.raises(BadArgument, match="temperature"):
        engine.submit(ask(PROMPT, beams=2, temperature=1.0))
