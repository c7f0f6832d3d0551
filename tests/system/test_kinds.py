"""Models of many kinds through a real kernel and the client: one call, typed inputs, typed results."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
import transformers
from safetensors.torch import save_file
from tiny_kinds import (
    LAYERS, SENTENCES, build, image_part, labels, pair_tokenizer, pictures, save, sound_part, sounds, text_model,
)  # fmt: skip

from llmos.syscalls.errors import BadArgument, NotSupported, TooLarge
from llmos.syscalls.types import Answer, Embeddings, Image, Labels, Scores, Spans, TensorsOut, Transcript
from llmos.userland import boot

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

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


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A kernel of this module with a model of each kind in its home, and a package that brings a class."""
    home, site = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("site")
    models = home / "models"
    models.mkdir()
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


def test_labels_of_a_text(system: Any) -> None:
    with system.load_model("/models/emotions") as model:
        assert (model.info.rung, model.info.tasks[0]) == ("F", "text-classification")
        found = model.infer(SENTENCES[0], options={"top_k": 2}).result
        assert isinstance(found, Labels) and len(found.labels) == 2
        assert model.infer(SENTENCES[0], task="sentiment-analysis").task == "text-classification"
        with pytest.raises(BadArgument, match="did you mean top_k"):
            model.infer("fox", options={"topk": 2})
        with pytest.raises(TooLarge):
            model.infer("the quick brown fox " * 100)
        with pytest.raises(NotSupported, match="text-classification"):
            model.infer("fox", task="text-generation")


def test_scores_entities_answers_and_vectors(system: Any) -> None:
    with system.load_model("/models/ranker") as model:
        found = model.infer(list(SENTENCES), task="rerank").result
        assert isinstance(found, Scores) and len(found.scores) == len(SENTENCES) - 1
    with system.load_model("/models/tagger") as model:
        found = model.infer(SENTENCES[0], task="ner", options={"ignore_labels": []}).result
        assert isinstance(found, Spans) and found.spans[0].start == 0
        assert all(SENTENCES[0][span.start : span.end] == span.text for span in found.spans)
    with system.load_model("/models/answerer") as model:
        answer = model.infer(["what jumps?", SENTENCES[2]])
        assert isinstance(answer.result, Answer)
        assert answer.text == SENTENCES[2][answer.result.start : answer.result.end]
    with system.load_model("/models/embedder") as model:
        found = model.embed(list(SENTENCES)).result
        assert isinstance(found, Embeddings) and found.tensor.shape == [len(SENTENCES), 32]
        assert sum(each**2 for each in found.tensor.tolist()[0]) == pytest.approx(1.0, abs=1e-4)


def test_text_is_rewritten_and_streamed(system: Any) -> None:
    with system.load_model("/models/writer") as model:
        assert model.info.rung == "G" and "summarization" in model.info.tasks
        whole = model.infer(SENTENCES[0], task="summarization", max_tokens=6, ignore_eos=True)
        assert len(whole.tokens) == 6
        with model.infer_stream(SENTENCES[0], max_tokens=6, ignore_eos=True) as stream:
            tokens = [token for chunk in stream for token in chunk.tokens]
            assert tokens == whole.tokens == stream.result.tokens


def test_a_picture_as_bytes_as_a_file_and_of_the_namespace(system: Any, tmp_path: Path) -> None:
    data = bytes(image_part(pictures()[2]).data)
    (tmp_path / "x.png").write_bytes(data)
    mounted = system.mount(tmp_path, "/mnt/pictures", filesystem="files")
    with mounted, system.load_model("/models/seer") as model:
        given: list[Any] = [data, tmp_path / "x.png", Image(path="/mnt/pictures/x.png")]
        found = [model.infer(each).result for each in given]
        assert isinstance(found[0], Labels) and found[0] == found[1] == found[2]
        with pytest.raises(BadArgument, match=r"damaged|no picture"):
            model.infer(Image(data=data[:40]))
        with pytest.raises(BadArgument):
            model.infer("no picture")


def test_a_picture_too_large_for_a_message_goes_by_a_buffer(system: Any) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (300, 300, 3), dtype="uint8")
    data = bytes(image_part(PIL.Image.fromarray(noise)).data)
    assert len(data) > 200_000
    with system.load_model("/models/seer") as model:
        assert isinstance(model.infer(data).result, Labels)


def test_speech(system: Any) -> None:
    with system.load_model("/models/hearer") as model:
        heard = model.infer(bytes(sound_part(sounds()[0]).data), options={"timestamps": "char"})
        assert isinstance(heard.result, Transcript) and heard.text == heard.result.text
        assert "".join(text for *_, text in heard.result.segments).replace("|", " ").strip() != "" or heard.text == ""


def test_a_model_of_a_package(system: Any) -> None:
    with system.load_model("/models/doubler") as model:
        assert (model.info.tasks, model.info.architecture) == (["tensors"], "Doubler")
        found = model.infer({"x": [[1.0, 2.0, 3.0], [0.0, 0.5, 0.25]]}).result
        assert isinstance(found, TensorsOut)
        assert found.named["y"].tolist() == [[2.0, 4.0, 6.0], [0.0, 1.0, 0.5]]
        with pytest.raises(BadArgument, match="takes x"):
            model.infer({"z": [[1.0]]})
        with pytest.raises(BadArgument, match="refuses"):
            model.infer({"x": [[1.0]]})
