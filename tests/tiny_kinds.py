"""Tiny models of many kinds with random weights, what stands before them, and runners that serve them."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import soundfile
import torch
import transformers
from tiny_models import TEXTS, VOCABULARY, finish, silent, source_of
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from llmos.drivers.contract import (
    DoneEvent, EmbedSettings, FailedEvent, LoadSettings, MediaPart, Part, Prompt, Request, SamplingParams,
)  # fmt: skip
from llmos.drivers.engine import loader
from llmos.drivers.engine.batching import LIMITS, BatchLimits
from llmos.drivers.engine.detokenizer import Vocabulary
from llmos.drivers.engine.forward import ForwardRunner
from llmos.drivers.engine.generating import GenerateRunner
from llmos.drivers.engine.loader import Bundle
from llmos.drivers.engine.pace import Pace
from llmos.drivers.engine.sampling.grammar import GrammarCompiler
from llmos.drivers.engine.shared import SharedModule
from llmos.drivers.engine.tasks.offered import offered, writing
from llmos.drivers.ops.reference import register_reference
from llmos.drivers.ops.table import OpTable

SENTENCES = (
    "the quick brown fox", "tokens are pieces of text: def f(x): return x + 1",
    "the lazy dog jumps over the other dog and the quick brown fox", "fox", "pieces", "it's fine, ok? yes!",
    "naïve café; wörld", "brown text and lazy tokens return over the fox", "x + 1", "def the dog",
)  # fmt: skip
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
LAYERS: Mapping[str, Any] = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64,
}  # fmt: skip
SIZE: Mapping[str, Any] = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
    "intermediate_size": 64, "max_position_embeddings": 160, "pad_token_id": 0,
}  # fmt: skip


def pair_tokenizer(**changes: Any) -> Any:
    """As BERT's, also for pairs."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    trainer = trainers.WordPieceTrainer(vocab_size=VOCABULARY, special_tokens=list(SPECIAL), show_progress=False)
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    fields: dict[str, Any] = {
        "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]",
        "mask_token": "[MASK]", "model_max_length": 128,
        "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],
    }  # fmt: skip
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **{**fields, **changes})


def build(config: Any, name: str, seed: int = 0, scale: float = 4.0) -> Any:
    """A model of that class with weights large enough that its answers differ."""
    torch.manual_seed(seed)
    module = getattr(transformers, name)(config).eval()
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.ndim >= 2:
                parameter.mul_(scale)
    return module


def save(folder: Path, module: Any, *fronts: Any) -> Path:
    """A model and what stands before it as a folder."""
    for part in (module, *fronts):
        part.save_pretrained(folder)
    return folder


def text_model(
    folder: Path, name: str, *, family: str = "Bert", tokenizer: Any = None, varied: bool = False, scale: float = 4.0,
    **fields: Any,
) -> Path:  # fmt: skip
    """A text model, as `text_model(folder, "BertForSequenceClassification", num_labels=3)`.

    With `varied`, the first one whose best label is not the same for all sentences, or all tokens.
    """
    tokenizer = tokenizer or pair_tokenizer()
    for seed in range(50):
        module = build(getattr(transformers, f"{family}Config")(**{**SIZE, **fields}), name, seed, scale)
        if not varied or len(best_labels(module, tokenizer)) >= 2:
            return save(folder, module, tokenizer)
    raise AssertionError(f"no seed makes a {name} that does not repeat itself")


@torch.inference_mode()
def best_labels(module: Any, tokenizer: Any) -> set[int]:
    """The likeliest labels of the sentences or of their tokens."""
    logits = [module(**tokenizer(text, return_tensors="pt")).logits for text in SENTENCES]
    return {label for each in logits for label in each.argmax(dim=-1).flatten().tolist()}


def labels(*names: str) -> dict[str, Any]:
    """Fields of a configuration with these labels."""
    return {"id2label": dict(enumerate(names)), "label2id": {name: index for index, name in enumerate(names)}}


def load(folder: Path, **settings: Any) -> Bundle:
    return loader.load(source_of(folder), LoadSettings(**settings), silent)


def ops() -> OpTable:
    table = OpTable()
    register_reference(table)
    return table


class Quick(Pace):
    """Believes the machine to be fast, whatever it sees: batches do not depend on what else runs."""

    def __init__(self) -> None:
        super().__init__(1)

    def observe(self, tokens: int, seconds: float) -> None:
        pass


def forward_runner(bundle: Bundle, limits: BatchLimits = LIMITS) -> ForwardRunner:
    """A runner of the tasks that the model offers."""
    return ForwardRunner(SharedModule(bundle.module), offered(bundle, ops()), Quick(), limits)


def generate_runner(bundle: Bundle, limits: BatchLimits = LIMITS) -> GenerateRunner:
    """A runner of a model that writes."""
    vocabulary = Vocabulary(bundle.tokenizer)
    with torch.inference_mode():
        task = writing(bundle)
    grammars = GrammarCompiler(bundle.tokenizer, vocabulary)
    return GenerateRunner(bundle, SharedModule(bundle.module), vocabulary, grammars, task, Quick(), limits)


def prompt_of(given: str | Sequence[int] | Sequence[Part] | Prompt) -> Prompt:
    """Text, token ids or parts."""
    if isinstance(given, Prompt):
        return given
    if isinstance(given, str):
        return Prompt(text=given)
    if given and isinstance(given[0], int):
        return Prompt(ids=[each for each in given if isinstance(each, int)])
    return Prompt(parts=[each for each in given if not isinstance(each, int)])


def ask(
    given: str | Sequence[int] | Sequence[Part] | Prompt, task: str, id: str = "r", *,
    embed: EmbedSettings | None = None, sampling: Mapping[str, Any] | None = None, stream: bool = False, **options: Any,
) -> Request:  # fmt: skip
    """A request; what else is named is an option of the task."""
    params = SamplingParams(**(sampling or {}))
    return Request(id, "m", prompt_of(given), task, params, embed, stream=stream, options=options)


@torch.inference_mode()
def answers(runner: Any, requests: Sequence[Request]) -> list[DoneEvent]:
    """The results of requests that are submitted together, in their order; fails with an error of one."""
    events = finish(runner, *requests)
    found = []
    for request in requests:
        (event,) = [event for event in events[request.id] if isinstance(event, DoneEvent | FailedEvent)]
        assert isinstance(event, DoneEvent), event
        found.append(event)
    return found


def answer(runner: Any, given: Any, task: str, **options: Any) -> DoneEvent:
    """The result of one request."""
    return answers(runner, [ask(given, task, **options)])[0]


def together_and_alone(runner: Any, requests: Sequence[Request]) -> tuple[list[DoneEvent], list[DoneEvent]]:
    """The results of requests in shared batches, and of each by itself."""
    return answers(runner, requests), [answers(runner, [request])[0] for request in requests]


def pictures(count: int = 6, side: int = 24) -> list[Any]:
    """Pictures of pillow that differ in colour, shape and size."""
    made = []
    for number in range(count):
        width, height = side + 5 * number, side + 3 * (count - number)
        x, y = np.meshgrid(np.arange(width), np.arange(height))
        planes = [(x * (number + 1) * 7) % 256, (y * (count - number) * 5) % 256, ((x + y) * number * 3) % 256]
        made.append(PIL.Image.fromarray(np.stack(planes, axis=-1).astype(np.uint8)))
    return made


def image_part(picture: Any, kind: str = "PNG") -> MediaPart:
    stream = io.BytesIO()
    picture.save(stream, kind)
    return MediaPart("image", memoryview(stream.getvalue()))


def sounds(count: int = 6, rate: int = 16_000) -> list[Any]:
    """Samples that differ in pitch and length."""
    return [
        (0.4 * np.sin(2 * np.pi * (200 + 170 * number) * np.arange(int(rate * (0.1 + 0.03 * number))) / rate)
         + 0.05 * np.random.default_rng(number).standard_normal(int(rate * (0.1 + 0.03 * number)))).astype(np.float32)
        for number in range(count)
    ]  # fmt: skip


def sound_part(samples: Any, rate: int = 16_000) -> MediaPart:
    stream = io.BytesIO()
    soundfile.write(stream, samples, rate, format="WAV", subtype="FLOAT")
    return MediaPart("audio", memoryview(stream.getvalue()))
