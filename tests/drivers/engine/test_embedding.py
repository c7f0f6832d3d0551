"""Vectors: those of the model itself, pooled as asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tiny_models import PROMPT, ask, done, silent, source_of

from llmos.drivers.contract import DoneEvent, EmbedSettings, LoadSettings, Prompt
from llmos.drivers.engine.engine import Engine
from llmos.drivers.ops.table import OpTable
from llmos.syscalls.errors import BadArgument, NotSupported, TooLarge


@pytest.fixture
def encoder(ops: OpTable, bert: Path) -> Engine:
    engine = Engine(ops)
    loaded = engine.load("m", source_of(bert), LoadSettings(), silent)
    assert (loaded.rung, list(loaded.tasks)) == ("F", ["feature-extraction", "tokenize", "detokenize"])
    return engine


def vector(engine: Engine, prompt: Any, **settings: Any) -> torch.Tensor:
    event = done(engine, ask(prompt, embed=EmbedSettings(**settings)))
    assert event.embeddings is not None and len(event.embeddings) == 1
    return torch.tensor(event.embeddings[0])


def states(folder: Path, ids: Sequence[int], **options: Any) -> torch.Tensor:
    module = transformers.AutoModel.from_pretrained(folder).eval()
    with torch.inference_mode():
        found: torch.Tensor = module(torch.tensor([list(ids)]), **options).last_hidden_state[0]
    return found


@pytest.mark.parametrize(("pooling", "pick"), [("cls", 0), ("last", -1)])
def test_one_state_is_picked(encoder: Engine, bert: Path, pooling: str, pick: int) -> None:
    ids = transformers.AutoTokenizer.from_pretrained(bert)("the quick dog")["input_ids"]
    expected = states(bert, ids)[pick]
    found = vector(encoder, "the quick dog", pooling=pooling, normalize=False)
    assert torch.allclose(found, expected, atol=1e-6)


def test_the_mean_leaves_out_padding_and_padding_changes_nothing(encoder: Engine) -> None:
    ids = [2, 40, 50, 60, 3]
    assert torch.allclose(vector(encoder, ids), vector(encoder, [*ids, 0, 0, 0]), atol=1e-6)


def test_normalised_vectors_have_length_one(encoder: Engine) -> None:
    found = vector(encoder, "the quick dog")
    assert found.norm() == pytest.approx(1.0, abs=1e-6)
    raw = vector(encoder, "the quick dog", normalize=False)
    assert torch.allclose(found, raw / raw.norm(), atol=1e-6)


def test_a_language_model_embeds_with_its_last_states(engine: Engine, llama: Path) -> None:
    expected = states(llama, PROMPT)[-1]
    found = vector(engine, PROMPT, pooling="last", normalize=False)
    assert torch.allclose(found, expected, atol=1e-5)


def test_a_language_model_embeds_several_texts_each_as_alone(engine: Engine) -> None:
    texts = ("the quick dog " * 5, "fox")
    request = replace(ask("", task="embed"), prompt=Prompt(parts=texts))
    event = done(engine, replace(request, options={"pooling": "last", "max_tokens": 8}))
    assert event.embeddings is not None and event.truncated == (True, False) and 8 < event.prompt_tokens < 16
    alone = [vector(engine, text, pooling="last", max_tokens=8) for text in texts]
    assert torch.allclose(torch.tensor(event.embeddings), torch.stack(alone), atol=1e-6)
    with pytest.raises(BadArgument, match="no option 'poling'; did you mean pooling"):
        engine.submit(replace(request, options={"poling": "last"}))


def test_truncation_is_reported_and_refusal_has_numbers(encoder: Engine) -> None:
    text = "the quick dog " * 40
    event = done(encoder, ask(text, embed=EmbedSettings(max_tokens=8)))
    assert (event.truncated, event.prompt_tokens) == ((True,), 8)
    assert done(encoder, ask("the", embed=EmbedSettings(max_tokens=8))).truncated == (False,)
    with pytest.raises(TooLarge) as error:
        encoder.submit(ask(text, embed=EmbedSettings()))
    assert error.value.limit == 64


def test_wrong_options_are_refused(encoder: Engine) -> None:
    for settings, name in (({"pooling": "max"}, "pooling"), ({"max_tokens": 0}, "max_tokens")):
        with pytest.raises(BadArgument) as error:
            encoder.submit(ask("the", embed=EmbedSettings(**settings)))
        assert error.value.name == name


def test_an_encoder_embeds_by_default_and_does_not_write(encoder: Engine) -> None:
    assert done(encoder, ask("the dog")).task == "feature-extraction"
    with pytest.raises(NotSupported, match="text-generation"):
        encoder.submit(ask("the dog", task="text-generation"))
    with pytest.raises(NotSupported, match="no conversation"):
        encoder.open_context("c", "m", "", 0)


def test_cancelled_means_no_vector(encoder: Engine) -> None:
    encoder.submit(ask("the dog"))
    encoder.cancel("r")
    (event,) = encoder.step()
    assert isinstance(event, DoneEvent)
    assert (event.embeddings, event.choices[0].reason) == (None, "cancelled")
