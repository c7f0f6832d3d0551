"""What a model is for: from the architecture its configuration names to the class that loads it and to what it reads.

The library's own tables of architectures decide (`transformers.models.auto.modeling_auto`).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import transformers
from transformers.models.auto import modeling_auto as auto

TEXT, IMAGES, SOUNDS, BOTH, NUMBERS = "text", "images", "sounds", "text and images", "tensors"
"""What a model reads."""

PROCESSORS = ("preprocessor_config.json", "processor_config.json", "image_processor_config.json")


@dataclass(frozen=True)
class Kind:
    """`auto`: the class of transformers that builds it, empty for the one that the configuration names; `reads`: what
    goes in; `writes`: it generates text."""

    name: str
    auto: str
    reads: str = TEXT
    writes: bool = False

    @property
    def text(self) -> bool:
        """Whether text goes in or comes out, so that a tokenizer is needed."""
        return self.tokens or self is CTC

    @property
    def tokens(self) -> bool:
        """Whether tokens go through the model, so that it has a context."""
        return self.reads in (TEXT, BOTH) or self.writes

    @property
    def processor(self) -> bool:
        """Whether pictures or sounds go in, so that their processor is needed."""
        return self.reads in (IMAGES, SOUNDS, BOTH)


CAUSAL = Kind("causal language model", "AutoModelForCausalLM", writes=True)
ENCODER = Kind("encoder", "AutoModel")
TEXT_ENCODER = Kind("encoder half of an encoder-decoder", "AutoModelForTextEncoding")
MASKED = Kind("masked language model", "AutoModelForMaskedLM")
SEQUENCE = Kind("sequence classifier", "AutoModelForSequenceClassification")
TOKEN = Kind("token classifier", "AutoModelForTokenClassification")
QUESTION = Kind("extractive question answerer", "AutoModelForQuestionAnswering")
SEQ2SEQ = Kind("encoder-decoder", "AutoModelForSeq2SeqLM", writes=True)
IMAGE = Kind("image classifier", "AutoModelForImageClassification", IMAGES)
IMAGE_ENCODER = Kind("image encoder", "AutoModel", IMAGES)
DUAL = Kind("image and text encoder", "AutoModelForZeroShotImageClassification", BOTH)
VISION = Kind("vision-language model", "AutoModelForImageTextToText", BOTH, writes=True)
SPEECH = Kind("speech encoder-decoder", "AutoModelForSpeechSeq2Seq", SOUNDS, writes=True)
CTC = Kind("speech recogniser by frames", "AutoModelForCTC", SOUNDS)
AUDIO = Kind("audio classifier", "AutoModelForAudioClassification", SOUNDS)
SERIES = Kind("time series model", "", NUMBERS)
PLUGIN = Kind("model of a plug-in", "", NUMBERS)

_TABLES = {
    MASKED: auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    SEQUENCE: auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
    TOKEN: auto.MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES,
    QUESTION: auto.MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES,
    IMAGE: auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES,
    DUAL: auto.MODEL_FOR_ZERO_SHOT_IMAGE_CLASSIFICATION_MAPPING_NAMES,
    CTC: auto.MODEL_FOR_CTC_MAPPING_NAMES,
    AUDIO: auto.MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING_NAMES,
}


def kind_of(config: Any, files: Collection[str]) -> tuple[Kind | None, str]:
    """The kind of a model, or None when it is of none of them, and the name of its class.

    `files` are the names in its folder: a vision-language model whose folder has no processor is a language model,
    where the library can load it as one.
    """
    name = (config.architectures or [_default(config)])[0]
    model, both = config.model_type, getattr(config, "is_encoder_decoder", False)
    sees = _listed(auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES, model, name)
    if name is None:
        return None, "a model without an architecture"
    if sees and any(file in files for file in PROCESSORS):
        return VISION, name
    if _listed(auto.MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES, model, name):
        return SPEECH, name
    if not both and _listed(auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, model, name):
        return CAUSAL, name
    if both and _listed(auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES, model, name):
        return SEQ2SEQ, name
    if sees:
        return VISION, name
    found = next((kind for kind, table in _TABLES.items() if _listed(table, model, name)), None)
    if found is None and not both and _listed(auto.MODEL_MAPPING_NAMES, model, name):
        return {"input_ids": ENCODER, "pixel_values": IMAGE_ENCODER}.get(_main_input(config, name)), name
    if found is None and "For" in name and _main_input(config, name) == "past_values":
        found = SERIES
    if found is None and _listed(auto.MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES, model, name):
        found = TEXT_ENCODER
    return found, name


def _default(config: Any) -> str | None:
    """What a configuration that names no class most likely belongs to."""
    kind = config.model_type
    causal, masked = (
        table.get(kind) for table in (auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES)
    )
    if causal is not None and (masked is None or getattr(config, "is_decoder", False)):
        return str(causal)
    names = _names(auto.MODEL_MAPPING_NAMES, kind)
    return names[0] if names else None


def _main_input(config: Any, name: str) -> str:
    """What the class of that name reads, if it belongs to the configuration."""
    named: Any = getattr(transformers, name, None)
    return str(named.main_input_name) if getattr(named, "config_class", None) is type(config) else ""


def _listed(table: Any, model: str, name: str | None) -> bool:
    return name in _names(table, model)


def _names(table: Any, model: str) -> tuple[str, ...]:
    found = table.get(model, ())
    return (found,) if isinstance(found, str) else tuple(found)
