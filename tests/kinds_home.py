"""A home with a tiny model of each kind, and a kernel that serves them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import save_file
from tiny_kinds import LAYERS, build, labels, pair_tokenizer, save, text_model
from tiny_models import build as build_causal
from tiny_models import byte_level

from llmos.userland import boot

PLUGIN = '''
import torch
from llmos.drivers.hookspecs import hookimpl

class Doubler(torch.nn.Module):
    def __init__(self, config):
        super().__init__()
        self.line = torch.nn.Linear(config["width"], config["width"], bias=False)

    def forward(self, x):
        return {"y": self.line(x)}

@hookimpl
def register_models(register):
    register("Doubler", Doubler, batched=True)
'''


def doubler(folder: Path) -> Path:
    folder.mkdir()
    save_file({"line.weight": torch.eye(3) * 2}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"architectures": ["Doubler"], "width": 3}))
    return folder


def package(site: Path) -> Path:
    info = site / "doubler-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "doubler_models.py").write_text(PLUGIN)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: doubler\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[llmos.models]\ndoubler = doubler_models\n")
    return site


def ctc(folder: Path) -> Path:
    wave: dict[str, Any] = {
        **LAYERS, "conv_dim": [16, 16], "conv_stride": [5, 2], "conv_kernel": [10, 3], "num_feat_extract_layers": 2,
        "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2, "vocab_size": 10, "pad_token_id": 0,
    }  # fmt: skip
    folder.mkdir()
    (folder / "l.json").write_text(json.dumps({letter: at for at, letter in enumerate(["<pad>", "|", *"abcdefgh"])}))
    letters = transformers.Wav2Vec2CTCTokenizer(str(folder / "l.json"), unk_token="a", bos_token="b", eos_token="c")
    (folder / "l.json").unlink()
    module = build(transformers.Wav2Vec2Config(**wave, feat_extract_norm="layer"), "Wav2Vec2ForCTC")
    return save(folder, module, transformers.Wav2Vec2FeatureExtractor(return_attention_mask=True), letters)


@contextmanager
def system_of_kinds(home: Path, site: Path) -> Iterator[Any]:
    """A kernel with a model of each kind in its home, and a package that brings a class."""
    models = home / "models"
    models.mkdir()
    build_causal(models / "writes", tokenizer=byte_level(chat=True))
    inference = labels("contradiction", "neutral", "entailment")
    text_model(models / "inference", "BertForSequenceClassification", **inference)
    text_model(models / "masked", "BertForMaskedLM")
    text_model(models / "emotions", "BertForSequenceClassification", varied=True, **labels("joy", "anger", "calm"))
    text_model(models / "ranker", "BertForSequenceClassification", num_labels=1)
    text_model(models / "tagger", "BertForTokenClassification", **labels("O", "B-PER", "I-PER"))
    text_model(models / "answerer", "BertForQuestionAnswering")
    text_model(models / "embedder", "BertModel")
    writer = transformers.BartConfig(
        vocab_size=320, pad_token_id=0, eos_token_id=3, bos_token_id=2, d_model=32, encoder_layers=1, decoder_layers=1,
        encoder_attention_heads=2, decoder_attention_heads=2, decoder_start_token_id=2, tie_word_embeddings=False,
    )  # fmt: skip
    save(models / "writer", build(writer, "BartForConditionalGeneration"), pair_tokenizer())
    seen = transformers.ViTConfig(**LAYERS, image_size=16, patch_size=4, **labels("cat", "dog"))
    seer = transformers.ViTImageProcessorPil(size={"height": 16, "width": 16})
    save(models / "seer", build(seen, "ViTForImageClassification"), seer)
    ctc(models / "hearer")
    doubler(models / "doubler")
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(package(site))
    try:
        with boot(drivers=["cpu0", "models", "files", "doubler"], home=home) as made:
            yield made
    finally:
        os.environ.pop("PYTHONPATH")
        if before is not None:
            os.environ["PYTHONPATH"] = before
