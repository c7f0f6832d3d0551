"""Models of many kinds through a real kernel and the client: one call, typed inputs, typed results."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from kinds_home import system_of_kinds
from tiny_kinds import SENTENCES, image_part, pictures, sound_part, sounds

from llmos.syscalls.errors import BadArgument, NotSupported, TooLarge
from llmos.syscalls.types import Answer, Embeddings, Image, Labels, Scores, Spans, TensorsOut, Transcript

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with system_of_kinds(tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("site")) as made:
        yield made


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
