"""What stands before a model is checked and loaded by the model's kind."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tiny_models import source_of, word_piece

from llmos.drivers.engine import fronts, kinds
from llmos.syscalls.errors import BadModel, NotSupported


def test_a_folder_must_hold_what_the_kind_needs(tmp_path: Path) -> None:
    fronts.check(source_of(tmp_path), kinds.PLUGIN)
    with pytest.raises(BadModel, match="tokenizer"):
        fronts.check(source_of(tmp_path), kinds.SEQUENCE)
    with pytest.raises(BadModel, match=r"preprocessor_config\.json") as error:
        fronts.check(source_of(tmp_path), kinds.IMAGE)
    assert error.value.file == "preprocessor_config.json"
    transformers.ViTImageProcessorPil().save_pretrained(tmp_path)
    fronts.check(source_of(tmp_path), kinds.IMAGE)
    with pytest.raises(BadModel, match="tokenizer"):
        fronts.check(source_of(tmp_path), kinds.CTC)
    word_piece().save_pretrained(tmp_path)
    fronts.check(source_of(tmp_path), kinds.CTC)
    assert fronts.processor_file(source_of(tmp_path)) == "preprocessor_config.json"


@pytest.mark.parametrize(
    ("missing", "kind"), [("PIL.Image", kinds.IMAGE), ("soundfile", kinds.AUDIO), ("soxr", kinds.SPEECH)]
)
def test_a_library_that_is_not_installed_is_named_with_its_extra(
    missing: str, kind: kinds.Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.import_module

    def without(name: str) -> Any:
        if name == missing:
            raise ImportError(name)
        return found(name)

    monkeypatch.setattr(importlib, "import_module", without)
    word_piece().save_pretrained(tmp_path)
    with pytest.raises(NotSupported, match=r"install llmos\[media\]"):
        fronts.check(source_of(tmp_path), kind)


def test_processors_are_those_without_torchvision(tmp_path: Path) -> None:
    transformers.ViTImageProcessorPil().save_pretrained(tmp_path)
    assert type(fronts.load_processor(tmp_path, kinds.IMAGE)) is transformers.ViTImageProcessorPil
    transformers.Wav2Vec2FeatureExtractor().save_pretrained(tmp_path)
    assert type(fronts.load_processor(tmp_path, kinds.AUDIO)) is transformers.Wav2Vec2FeatureExtractor


def test_how_many_tokens_a_model_knows() -> None:
    class Blind(torch.nn.Module):
        def get_input_embeddings(self) -> Any:
            raise NotImplementedError

    size: dict[str, Any] = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    assert fronts.vocabulary(transformers.BertModel(transformers.BertConfig(vocab_size=30, **size))) == 30
    assert fronts.vocabulary(transformers.ViTModel(transformers.ViTConfig(**size))) == 0
    assert fronts.vocabulary(Blind()) == 0
