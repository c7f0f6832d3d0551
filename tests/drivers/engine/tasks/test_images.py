"""Tasks on pictures: those of the library's pipelines, one by one or in shared batches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tiny_kinds import (
    LAYERS, SIZE, answer, answers, ask, build, forward_runner, image_part, labels, load, pair_tokenizer, pictures, save,
    sound_part, sounds, together_and_alone,
)  # fmt: skip

from llmos.drivers.contract import DoneEvent, LabelsResult
from llmos.drivers.engine.forward import ForwardRunner
from llmos.syscalls.errors import BadArgument

LABELS = ("cat", "dog", "fox", "owl")
SEEN: dict[str, Any] = {**LAYERS, "image_size": 16, "patch_size": 4}


def processor(name: str = "ViTImageProcessorPil", side: int = 16, **fields: Any) -> Any:
    return getattr(transformers, name)(size={"height": side, "width": side}, **fields)


def scores(event: DoneEvent) -> list[tuple[str, float]]:
    assert isinstance(event.result, LabelsResult)
    return [(each.label, each.score) for each in event.result.labels]


def same(found: list[tuple[str, float]], expected: list[dict[str, Any]]) -> None:
    assert [label for label, _ in found] == [each["label"] for each in expected]
    assert [score for _, score in found] == pytest.approx([each["score"] for each in expected], abs=1e-5)


def pipeline(task: str, folder: Path) -> Any:
    made: Any = transformers.pipeline
    return made(task, model=str(folder))


CLASSIFIERS: dict[str, dict[str, Any]] = {
    "ViT": SEEN,
    "ResNet": {"hidden_sizes": [16, 32], "depths": [1, 1], "embedding_size": 16},
    "ConvNext": {"hidden_sizes": [16, 32], "depths": [1, 1], "num_stages": 2, "patch_size": 2},
}
IMAGE = "image-classification"


@pytest.mark.parametrize("family", CLASSIFIERS)
def test_labels_are_those_of_the_pipeline(tmp_path: Path, family: str) -> None:
    config = getattr(transformers, f"{family}Config")(**CLASSIFIERS[family], **labels(*LABELS))
    for seed in range(20):
        scale = 1.0 if family == "ResNet" else 4.0
        save(tmp_path, build(config, f"{family}ForImageClassification", seed, scale), processor())
        pipe = pipeline(IMAGE, tmp_path)
        expected = [pipe(picture, top_k=3) for picture in pictures()]
        if len({each[0]["label"] for each in expected}) >= 2:
            break
    else:
        raise AssertionError("the model always sees the same")
    runner = forward_runner(load(tmp_path))
    requests = [ask([image_part(p)], IMAGE, str(at), top_k=3) for at, p in enumerate(pictures())]
    for batched, alone, wanted in zip(*together_and_alone(runner, requests), expected, strict=True):
        same(scores(batched), wanted)
        same(scores(alone), wanted)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> ForwardRunner:
    folder = tmp_path_factory.mktemp("m")
    config = transformers.ViTConfig(**SEEN, **labels(*LABELS))
    return forward_runner(load(save(folder, build(config, "ViTForImageClassification"), processor())))


def test_pictures_of_any_size_share_a_batch(classifier: ForwardRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    task, sizes = classifier._tasks[IMAGE], []
    run = task.run
    monkeypatch.setattr(task, "run", lambda module, lines: (sizes.append(len(lines)), run(module, lines))[1])
    answers(classifier, [ask([image_part(p)], IMAGE, str(at)) for at, p in enumerate(pictures())])
    assert sizes == [6]


@pytest.mark.parametrize(
    "given",
    ["a text", [2, 3], ["a text"], [image_part(each) for each in pictures(2)], [sound_part(sounds(1)[0])], []],
    ids=["text", "ids", "text part", "two pictures", "sound", "nothing"],
)
def test_what_is_no_picture_is_refused(classifier: ForwardRunner, given: Any) -> None:
    with pytest.raises(BadArgument, match="one picture"):
        classifier.submit(ask(given, IMAGE))


def test_options_are_checked(classifier: ForwardRunner) -> None:
    with pytest.raises(BadArgument, match="top_k"):
        classifier.submit(ask([image_part(pictures(1)[0])], IMAGE, topk=1))


VECTORS = "image-feature-extraction"


@pytest.mark.parametrize("family", ["ViT", "ResNet"])
def test_vectors_are_pooled_states_of_the_pipeline(tmp_path: Path, family: str) -> None:
    config = getattr(transformers, f"{family}Config")(**CLASSIFIERS[family])
    save(tmp_path, build(config, f"{family}Model"), processor())
    pipe, runner = pipeline(VECTORS, tmp_path), forward_runner(load(tmp_path))
    event = answer(runner, [image_part(p) for p in pictures()], VECTORS, pooling="mean", normalize=False)
    assert event.embeddings is not None and event.truncated == (False,) * 6
    for row, picture in zip(event.embeddings, pictures(), strict=True):
        states = torch.tensor(pipe(picture))[0]
        expected = states.mean(dim=0) if states.ndim == 2 else states.mean(dim=(1, 2))
        assert torch.allclose(torch.tensor(row), expected, atol=1e-5)
    first = answer(runner, [image_part(pictures()[0])], VECTORS)
    assert first.embeddings is not None and torch.tensor(first.embeddings).norm() == pytest.approx(1.0, abs=1e-5)


DUAL = "zero-shot-image-classification"
CANDIDATES = ["the lazy dog", "fox", "pieces of text", "x + 1"]


def dual(folder: Path, family: str, seed: int = 0) -> Path:
    text = {**SIZE, "max_position_embeddings": 64, "eos_token_id": 3, "bos_token_id": 2}
    config = getattr(transformers, f"{family}Config")(
        text_config=text, vision_config={**SEEN, "intermediate_size": 64}, projection_dim=16
    )
    shape: Any = {"shortest_edge": 16} if family == "CLIP" else {"height": 16, "width": 16}
    size = {"crop_size": 16, "size": shape} if family == "CLIP" else {"size": shape}
    seer = getattr(transformers, f"{family}ImageProcessorPil")(**size)
    module = build(config, f"{family}Model", seed, scale=8.0)
    return save(folder, module, seer, pair_tokenizer(model_max_length=64))


@pytest.mark.parametrize("family", ["CLIP", "Siglip"])
def test_labels_of_ones_own_are_those_of_the_pipeline(tmp_path: Path, family: str) -> None:
    for seed in range(20):
        folder = dual(tmp_path, family, seed)
        pipe = pipeline(DUAL, folder)
        expected = [pipe(p, candidate_labels=CANDIDATES, hypothesis_template="see {}") for p in pictures()]
        if len({each[0]["label"] for each in expected}) >= 2:
            break
    else:
        raise AssertionError("the model always sees the same")
    runner = forward_runner(load(folder))
    requests = [
        ask([image_part(p)], DUAL, str(at), candidate_labels=CANDIDATES, hypothesis_template="see {}")
        for at, p in enumerate(pictures())
    ]
    for batched, alone, wanted in zip(*together_and_alone(runner, requests), expected, strict=True):
        same(scores(batched), wanted)
        same(scores(alone), wanted)


def test_requests_with_other_labels_share_a_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runner = forward_runner(load(dual(tmp_path, "CLIP")))
    task, sizes = runner._tasks[DUAL], []
    first, second = pictures(2)
    requests = [
        ask([image_part(first)], DUAL, "1", candidate_labels=["fox", "dog"]),
        ask([image_part(second)], DUAL, "2", candidate_labels=["dog", "the lazy dog and the fox", "text"]),
    ]
    _, alone = together_and_alone(runner, requests)
    run = task.run
    monkeypatch.setattr(task, "run", lambda module, lines: (sizes.append(len(lines)), run(module, lines))[1])
    both = answers(runner, requests)
    assert sizes == [2]
    for one, other in zip(both, alone, strict=True):
        assert dict(scores(one)) == pytest.approx(dict(scores(other)), abs=1e-5)


def test_captions_need_labels_and_a_place(tmp_path: Path) -> None:
    runner, part = forward_runner(load(dual(tmp_path, "CLIP"))), image_part(pictures(1)[0])
    for options in ({}, {"candidate_labels": ["a"], "hypothesis_template": "none"}):
        with pytest.raises(BadArgument):
            runner.submit(ask([part], DUAL, **options))
