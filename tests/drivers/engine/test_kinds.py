"""What a model is for follows from the architecture it names."""

from __future__ import annotations

from typing import Any

import pytest
import transformers
from transformers.models.auto import modeling_auto as auto

from llmos.drivers.engine import kinds
from llmos.drivers.engine.kinds import Kind

WITH_PROCESSOR = ("config.json", "processor_config.json")


def kind_of(config: Any, name: str | None, files: tuple[str, ...] = WITH_PROCESSOR) -> tuple[Kind | None, str]:
    config.architectures = None if name is None else [name]
    return kinds.kind_of(config, files)


@pytest.mark.parametrize(
    ("config", "name", "kind"),
    [
        ("LlamaConfig", "LlamaForCausalLM", kinds.CAUSAL), ("LlamaConfig", None, kinds.CAUSAL),
        ("LlamaConfig", "LlamaModel", kinds.ENCODER), ("BertConfig", "BertModel", kinds.ENCODER),
        ("BertConfig", None, kinds.ENCODER), ("BertConfig", "BertForMaskedLM", kinds.MASKED),
        ("BertConfig", "BertForSequenceClassification", kinds.SEQUENCE),
        ("BertConfig", "BertForTokenClassification", kinds.TOKEN),
        ("BertConfig", "BertForQuestionAnswering", kinds.QUESTION), ("BertConfig", "BertForMultipleChoice", None),
        ("BartConfig", "BartForConditionalGeneration", kinds.SEQ2SEQ),
        ("BartConfig", "BartForSequenceClassification", kinds.SEQUENCE), ("BartConfig", "BartModel", None),
        ("T5Config", "T5ForConditionalGeneration", kinds.SEQ2SEQ), ("T5Config", "T5EncoderModel", kinds.TEXT_ENCODER),
        ("ViTConfig", "ViTForImageClassification", kinds.IMAGE), ("ViTConfig", "ViTModel", kinds.IMAGE_ENCODER),
        ("CLIPConfig", "CLIPModel", kinds.DUAL), ("SiglipConfig", "SiglipModel", kinds.DUAL),
        ("LlavaConfig", "LlavaForConditionalGeneration", kinds.VISION),
        ("WhisperConfig", "WhisperForConditionalGeneration", kinds.SPEECH),
        ("Wav2Vec2Config", "Wav2Vec2ForCTC", kinds.CTC),
        ("Wav2Vec2Config", "Wav2Vec2ForSequenceClassification", kinds.AUDIO), ("Wav2Vec2Config", "Wav2Vec2Model", None),
        ("PatchTSTConfig", "PatchTSTForPrediction", kinds.SERIES), ("PatchTSTConfig", "PatchTSTModel", None),
    ],
)  # fmt: skip
def test_each_architecture_has_its_kind(config: str, name: str | None, kind: Kind | None) -> None:
    found, said = kind_of(getattr(transformers, config)(), name)
    assert found is kind and (name is None or said == name)


def test_a_vision_language_model_without_a_processor_is_a_language_model_where_it_can_be() -> None:
    config = transformers.Gemma3Config()
    assert kind_of(config, "Gemma3ForConditionalGeneration")[0] is kinds.VISION
    assert kind_of(config, "Gemma3ForConditionalGeneration", ("config.json",))[0] is kinds.CAUSAL
    assert kind_of(transformers.LlavaConfig(), "LlavaForConditionalGeneration", ())[0] is kinds.VISION


def test_what_a_kind_needs() -> None:
    needs = {kind: (kind.text, kind.processor) for kind in vars(kinds).values() if isinstance(kind, Kind)}
    assert {kind for kind, (text, processor) in needs.items() if text and processor} == {
        kinds.DUAL, kinds.VISION, kinds.SPEECH, kinds.CTC
    }  # fmt: skip
    assert {kind for kind, (text, processor) in needs.items() if not text and not processor} == {
        kinds.SERIES, kinds.PLUGIN
    }  # fmt: skip


def test_what_reads_or_writes_tokens_has_a_context() -> None:
    assert kinds.SPEECH.tokens and kinds.DUAL.tokens and kinds.TOKEN.tokens
    assert not (kinds.CTC.tokens or kinds.IMAGE.tokens or kinds.SERIES.tokens)


def test_every_kind_has_a_class_of_the_library() -> None:
    for kind in (kind for kind in vars(kinds).values() if isinstance(kind, Kind) and kind.auto):
        assert hasattr(transformers, kind.auto), kind


def test_a_configuration_without_any_architecture_is_of_no_kind() -> None:
    class Config:
        architectures = None
        model_type = "nothing that is known"

    assert "nothing that is known" not in auto.MODEL_MAPPING_NAMES
    assert kinds.kind_of(Config(), ()) == (None, "a model without an architecture")
