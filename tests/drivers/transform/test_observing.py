"""What is seen of a model while it reads text."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import transformers
from tiny_kinds import LAYERS
from tiny_models import byte_level, config_of, random_module, silent, source_of, word_piece

from llmos.drivers.contract import ModelSource
from llmos.drivers.transform import observing
from llmos.syscalls.errors import NotSupported


def text_of(folder: Path, content: str) -> ModelSource:
    folder.mkdir(exist_ok=True)
    (folder / "t.txt").write_text(content)
    return replace(source_of(folder), path="/t.txt")


def test_norms_and_influence_are_those_of_a_run_by_hand(tmp_path: Path) -> None:
    random_module(config_of("llama")).save_pretrained(tmp_path / "m")
    byte_level().save_pretrained(tmp_path / "m")
    text = text_of(tmp_path / "text", "the quick brown fox jumps over the lazy dog. " * 20)
    seen = observing.observe(source_of(tmp_path / "m"), [text], silent)
    whole = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "m")
    squares, alike = torch.zeros(64), []
    with torch.inference_mode():
        for piece in seen.text.learn:
            states = whole(piece[None], output_hidden_states=True).hidden_states
            squares += whole.model.layers[1].input_layernorm(states[1])[0].square().sum(dim=0)
            alike.append(torch.nn.functional.cosine_similarity(states[0], states[1], dim=-1).mean())
    found = seen.norms["model.layers.1.self_attn.q_proj"]
    torch.testing.assert_close(found, squares.sqrt(), rtol=1e-4, atol=1e-4)
    assert seen.influence[0] == pytest.approx(1 - float(sum(alike)) / len(alike), abs=1e-5)
    assert len(seen.norms) == 14 and set(seen.influence) == {0, 1}
    again = observing.measured(source_of(tmp_path / "m"), tmp_path / "m", seen.text, silent)
    assert again == pytest.approx(seen.perplexity) and again > 1


def test_models_that_write_no_text_are_refused(tmp_path: Path) -> None:
    sizes = {**LAYERS, "vocab_size": 320}
    transformers.BertForTokenClassification(transformers.BertConfig(**sizes)).save_pretrained(tmp_path / "tagger")
    word_piece().save_pretrained(tmp_path / "tagger")
    with pytest.raises(NotSupported, match="writes no text"):
        observing.observe(source_of(tmp_path / "tagger"), [text_of(tmp_path / "t", "the dog")], silent)
