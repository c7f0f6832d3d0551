"""Tasks on sounds: those of the library's pipelines, one by one or in shared batches."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers
from tiny_kinds import (
    LAYERS, answer, answers, ask, build, forward_runner, image_part, labels, load, pictures, save, sound_part, sounds,
    together_and_alone,
)  # fmt: skip

from llmos.drivers.contract import DoneEvent, LabelsResult, TranscriptResult
from llmos.drivers.engine.forward import ForwardRunner
from llmos.syscalls.errors import BadArgument

LABELS = ("hum", "beep", "noise", "voice")
LETTERS = ("<pad>", "<s>", "</s>", "<unk>", "|", *"abcdefghijkl")
WAVE: dict[str, Any] = {
    **LAYERS, "conv_dim": [16, 16], "conv_stride": [5, 2], "conv_kernel": [10, 3], "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2, "vocab_size": len(LETTERS), "pad_token_id": 0,
    "classifier_proj_size": 16,
}  # fmt: skip
NORMS: dict[str, tuple[dict[str, Any], dict[str, Any], bool]] = {
    "layer": ({"feat_extract_norm": "layer", "do_stable_layer_norm": True}, {"return_attention_mask": True}, True),
    "group": ({"feat_extract_norm": "group"}, {"return_attention_mask": False}, False),
}
"""Two families of such models: of one, padding can be masked; of the other, which looks at the whole sound, not."""
AUDIO, SPEECH = "audio-classification", "automatic-speech-recognition"


def ear(**fields: Any) -> Any:
    return transformers.Wav2Vec2FeatureExtractor(**{"do_normalize": True, **fields})


def letters(folder: Path) -> Any:
    (folder / "letters.json").write_text(json.dumps({letter: at for at, letter in enumerate(LETTERS)}))
    made = transformers.Wav2Vec2CTCTokenizer(str(folder / "letters.json"))
    (folder / "letters.json").unlink()
    return made


def pipeline(task: str, folder: Path) -> Any:
    made: Any = transformers.pipeline
    return made(task, model=str(folder))


def scores(event: DoneEvent) -> list[tuple[str, float]]:
    assert isinstance(event.result, LabelsResult)
    return [(each.label, each.score) for each in event.result.labels]


def said(event: DoneEvent) -> TranscriptResult:
    assert isinstance(event.result, TranscriptResult)
    return event.result


@pytest.mark.parametrize("norm", NORMS)
def test_labels_are_those_of_the_pipeline(tmp_path: Path, norm: str) -> None:
    fields, heard, _ = NORMS[norm]
    config = transformers.Wav2Vec2Config(**WAVE, **fields, **labels(*LABELS))
    for seed in range(20):
        save(tmp_path, build(config, "Wav2Vec2ForSequenceClassification", seed), ear(**heard))
        pipe = pipeline(AUDIO, tmp_path)
        expected = [pipe(samples, top_k=4) for samples in sounds()]
        if len({each[0]["label"] for each in expected}) >= 2:
            break
    else:
        raise AssertionError("the model always hears the same")
    runner = forward_runner(load(tmp_path))
    requests = [ask([sound_part(samples)], AUDIO, str(at)) for at, samples in enumerate(sounds())]
    for batched, alone, wanted in zip(*together_and_alone(runner, requests), expected, strict=True):
        for event in (batched, alone):
            assert [label for label, _ in scores(event)] == [each["label"] for each in wanted]
            assert [score for _, score in scores(event)] == pytest.approx([each["score"] for each in wanted], abs=1e-4)


def recogniser(folder: Path, norm: str = "layer") -> Path:
    """The first random model whose transcripts have several letters and differ."""
    fields, heard, _ = NORMS[norm]
    config = transformers.Wav2Vec2Config(**WAVE, **fields)
    for seed in range(30):
        save(folder, build(config, "Wav2Vec2ForCTC", seed), ear(**heard), letters(folder))
        pipe = pipeline(SPEECH, folder)
        texts = {pipe(samples)["text"] for samples in sounds()}
        if len(texts) >= 4 and len(set("".join(texts))) >= 3:
            return folder
    raise AssertionError("the model always hears the same")


@pytest.mark.parametrize("norm", NORMS)
def test_transcripts_are_those_of_the_pipeline(
    tmp_path: Path, norm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = recogniser(tmp_path, norm)
    pipe, runner = pipeline(SPEECH, folder), forward_runner(load(folder))
    requests = [ask([sound_part(samples)], SPEECH, str(at)) for at, samples in enumerate(sounds())]
    for batched, alone, samples in zip(*together_and_alone(runner, requests), sounds(), strict=True):
        assert said(batched).text == said(alone).text == pipe(samples)["text"]
    task, sizes = runner._tasks[SPEECH], []
    run = task.run
    monkeypatch.setattr(task, "run", lambda module, lines: (sizes.append(len(lines)), run(module, lines))[1])
    answers(runner, requests)
    assert (max(sizes) > 1) == NORMS[norm][2], "padded batches where padding can be masked, and only there"


@pytest.mark.parametrize("times", ["word", "char"])
def test_segments_have_the_times_of_the_pipeline(tmp_path: Path, times: str) -> None:
    folder = recogniser(tmp_path)
    pipe, runner = pipeline(SPEECH, folder), forward_runner(load(folder))
    seen = 0
    for samples in sounds():
        expected = pipe(samples, return_timestamps=times)
        found = said(answer(runner, [sound_part(samples)], SPEECH, timestamps=times))
        wanted = [(*each["timestamp"], each["text"]) for each in expected["chunks"]]
        assert [text for *_, text in found.segments] == [text for *_, text in wanted]
        assert np.allclose([each[:2] for each in found.segments], [each[:2] for each in wanted])
        seen += len(wanted)
    assert seen >= 6


def test_long_speech_is_read_in_chunks(tmp_path: Path) -> None:
    folder = recogniser(tmp_path)
    pipe, runner = pipeline(SPEECH, folder), forward_runner(load(folder))
    long = np.concatenate(sounds() * 3)
    event = answer(runner, [sound_part(long)], SPEECH, chunk_seconds=1)
    assert said(event).text == pipe(long, chunk_length_s=1)["text"] != ""
    assert said(answer(runner, [sound_part(long)], SPEECH, chunk_seconds=0)).text == pipe(long)["text"]


@pytest.fixture(scope="module")
def heard(tmp_path_factory: pytest.TempPathFactory) -> ForwardRunner:
    folder = tmp_path_factory.mktemp("m")
    module = build(transformers.Wav2Vec2Config(**WAVE), "Wav2Vec2ForCTC")
    return forward_runner(load(save(folder, module, ear(), letters(folder))))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("a text", "one sound"), (["a text"], "one sound"), ([image_part(pictures(1)[0])], "one sound"),
        ([sound_part(each) for each in sounds(2)], "one sound"), ([sound_part(sounds(1)[0][:8])], "too few"),
    ],
)  # fmt: skip
def test_what_is_no_sound_is_refused(heard: ForwardRunner, given: Any, message: str) -> None:
    with pytest.raises(BadArgument, match=message):
        heard.submit(ask(given, SPEECH))


def test_options_are_checked(heard: ForwardRunner) -> None:
    for options in ({"timestamps": "never"}, {"chunk_seconds": -1}, {"top_k": 1}):
        with pytest.raises(BadArgument):
            heard.submit(ask([sound_part(sounds(1)[0])], SPEECH, **options))


def test_a_sound_of_another_rate_is_resampled(heard: ForwardRunner) -> None:
    low = sound_part(sounds(1, rate=8000)[0], rate=8000)
    event = answer(heard, [low], SPEECH)
    assert event.prompt_tokens == pytest.approx(answer(heard, [sound_part(sounds(1)[0])], SPEECH).prompt_tokens, abs=1)
