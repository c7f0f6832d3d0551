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
from llmos.syscalls.errors import BadArgument, NotSupported


def text_of(folder: Path, content: str) -> ModelSource:
    folder.mkdir(exist_ok=True)
    (folder / "t.txt").write_text(content)
    return replace(source_of(folder), path="/t.txt")


def test_norms_and_influence_are_those_of_a_run_by_hand(tmp_path: Path) -> None:
    module = random_module(config_of("llama"))
    module.save_pretrained(tmp_path / "m")
    byte_level().save_pretrained(tmp_path / "m")
    text = text_of(tmp_path / "text", "the quick brown fox jumps over the lazy dog")
    seen = observing.observe(source_of(tmp_path / "m"), [text], silent)
    ids = torch.tensor([byte_level()("the quick brown fox jumps over the lazy dog")["input_ids"]])
    assert seen.tokens == ids.shape[1]
    whole = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "m")
    with torch.inference_mode():
        states = whole(ids, output_hidden_states=True).hidden_states
        inputs = whole.model.layers[1].input_layernorm(states[1])[0]
    torch.testing.assert_close(seen.norms["model.layers.1.self_attn.q_proj"], inputs.norm(dim=0), rtol=1e-4, atol=1e-4)
    cosine = torch.nn.functional.cosine_similarity(states[0], states[1], dim=-1).mean()
    assert seen.influence[0] == pytest.approx(1 - float(cosine), abs=1e-5)
    assert len(seen.norms) == 15 and set(seen.influence) == {0, 1}


def test_pieces_are_spread_over_the_text(tmp_path: Path) -> None:
    text = text_of(tmp_path / "a", "the dog " * 2000)
    pieces = observing.pieces_of(byte_level(), [text, text], 16)
    assert len(pieces) == observing.SAMPLES and {len(piece) for piece in pieces} == {16}
    (short,) = observing.pieces_of(byte_level(), [text_of(tmp_path / "b", "the dog")], 16)
    assert short.tolist() == byte_level()("the dog")["input_ids"]
    for texts in ([], [text_of(tmp_path / "c", "")]):
        with pytest.raises(BadArgument, match="text"):
            observing.pieces_of(byte_level(), texts, 16)


def test_models_that_write_no_text_are_refused(tmp_path: Path) -> None:
    sizes = {**LAYERS, "vocab_size": 320}
    transformers.BertForTokenClassification(transformers.BertConfig(**sizes)).save_pretrained(tmp_path / "tagger")
    word_piece().save_pretrained(tmp_path / "tagger")
    with pytest.raises(NotSupported, match="writes no text"):
        observing.observe(source_of(tmp_path / "tagger"), [text_of(tmp_path / "t", "the dog")], silent)
