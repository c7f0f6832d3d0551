"""Pictures and text to text: what the library's pipeline and `generate` say, one by one or together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tiny_kinds import (
    SIZE, answer, ask, build, generate_runner, image_part, load, pictures, save, sound_part, sounds,
    together_and_alone,
)  # fmt: skip
from tiny_media import TEMPLATE, llava
from tiny_models import byte_level

from llmos.drivers.contract import DoneEvent, Prompt
from llmos.drivers.engine import fronts, kinds
from llmos.drivers.engine.generating import GenerateRunner
from llmos.syscalls.errors import BadArgument, NotSupported, TooLarge

TASK = "image-text-to-text"
QUESTIONS = ("what is this? ", "the fox: ", "def ", "say it: the quick brown fox jumps ")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first random model that says different things about pictures and does not repeat itself."""
    folder = tmp_path_factory.mktemp("m")
    for seed in range(30):
        llava(folder, seed)
        texts = {tuple(plain(folder, "<image>fox", [picture])) for picture in pictures(4)}
        if len(texts) >= 3 and all(len(set(text)) >= 5 for text in texts):
            return folder
    raise AssertionError("the model always says the same")


def plain(folder: Path, text: str, seen: list[Any], **options: Any) -> list[int]:
    """What the library itself writes."""
    module: Any = transformers.AutoModelForImageTextToText.from_pretrained(folder)
    processor = fronts.load_processor(folder, kinds.VISION)
    made = processor(images=seen or None, text=text, return_tensors="pt")
    with torch.inference_mode():
        whole = module.generate(**made, **{"max_new_tokens": 10, "do_sample": False, **options})
    return [int(token) for token in whole[0, made["input_ids"].shape[1] :]]


def tokens(event: DoneEvent) -> list[int]:
    return list(event.choices[0].tokens)


FEW = {"max_tokens": 10}


def test_answers_are_those_of_the_library_alone_and_together(folder: Path) -> None:
    """Prompts of different lengths, so that those in one flight are padded."""
    runner = generate_runner(load(folder))
    given = list(zip(pictures(4), QUESTIONS, strict=True))
    requests = [ask([image_part(p), text], TASK, text, sampling=FEW, chat=False) for p, text in given]
    seen = set()
    for (picture, text), *events in zip(given, *together_and_alone(runner, requests), strict=True):
        expected = plain(folder, "<image>" + text, [picture])
        for event in events:
            assert tokens(event) == expected and event.prompt_tokens > 4
        seen.add(tuple(expected))
    assert len(seen) >= 3


def test_requests_of_equal_settings_share_a_flight(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runner, sizes = generate_runner(load(folder)), []
    inputs = runner._task.inputs
    monkeypatch.setattr(runner._task, "inputs", lambda drafts: (sizes.append(len(drafts)), inputs(drafts))[1])
    given = zip(pictures(4), QUESTIONS, strict=True)
    requests = [ask([image_part(picture), text], TASK, text, sampling=FEW) for picture, text in given]
    together_and_alone(runner, requests)
    assert sizes == [4, 1, 1, 1, 1]


def test_parts_are_a_message_of_a_chat(folder: Path) -> None:
    runner, (first, second) = generate_runner(load(folder)), pictures(2)
    found = answer(runner, [image_part(first), "or", image_part(second), "?"], TASK, sampling=FEW)
    assert tokens(found) == plain(folder, "[user]<image>or<image>?[assistant]", [first, second])
    pipe: Any = transformers.pipeline
    pipe = pipe(TASK, model=str(folder), processor=transformers.AutoProcessor.from_pretrained(folder, backend="pil"))
    chat = [{"role": "user", "content": [{"type": "image", "image": first}, {"type": "text", "text": "what?"}]}]
    said = pipe(text=chat, max_new_tokens=10, return_full_text=False)[0]["generated_text"]
    assert answer(runner, [image_part(first), "what?"], TASK, sampling=FEW).choices[0].text == said


def test_a_chat_with_pictures_and_more_turns(folder: Path) -> None:
    runner, (first, second) = generate_runner(load(folder)), pictures(2)
    data = [bytes(image_part(picture).data) for picture in (first, second)]
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "see"}, {"type": "image", "data": data[0]}]},
        {"role": "assistant", "content": [{"type": "text", "text": "a fox"}]},
        {"role": "user", "content": [{"type": "image", "data": data[1]}, {"type": "text", "text": "and?"}]},
    ]
    found = answer(runner, Prompt(messages=messages), TASK, sampling=FEW)
    expected = "[user]see<image>[assistant]a fox[user]<image>and?[assistant]"
    assert tokens(found) == plain(folder, expected, [first, second])


def test_a_message_of_text_alone_is_not_skipped(folder: Path) -> None:
    """The template goes through lists; a text in place of one would be nothing to it."""
    runner, picture = generate_runner(load(folder)), pictures(1)[0]
    seen = {"role": "user", "content": [{"type": "image", "data": bytes(image_part(picture).data)}]}
    messages = [{"role": "system", "content": "be brief"}, seen]
    found = answer(runner, Prompt(messages=messages), TASK, sampling=FEW)
    assert tokens(found) == plain(folder, "[system]be brief[user]<image>[assistant]", [picture])


def test_text_alone_and_marked_places_are_taken(folder: Path) -> None:
    runner, (picture,) = generate_runner(load(folder)), pictures(1)
    assert tokens(answer(runner, "the fox", TASK, sampling=FEW)) == plain(folder, "the fox", [])
    found = answer(runner, ["in <image> is", image_part(picture)], TASK, sampling=FEW, chat=False)
    assert tokens(found) == plain(folder, "in <image> is", [picture])
    ids = load(folder).tokenizer("the fox")["input_ids"]
    assert tokens(answer(runner, ids, TASK, sampling=FEW)) == plain(folder, "the fox", [])


def test_beams_and_a_grammar(folder: Path) -> None:
    runner, (picture,) = generate_runner(load(folder)), pictures(1)
    found = answer(runner, [image_part(picture), "x"], TASK, sampling={**FEW, "beams": 3}, chat=False)
    assert tokens(found) == plain(folder, "<image>x", [picture], num_beams=3)
    number = answer(runner, [image_part(picture), "x"], TASK, sampling={**FEW, "grammar": {"regex": "[0-9]{3}"}})
    assert len(number.choices[0].text) == 3 and number.choices[0].text.isdigit()


def bad(runner: GenerateRunner, given: Any, error: type[Exception], **options: Any) -> Any:
    with pytest.raises(error) as told:
        runner.submit(ask(given, TASK, **options))
    assert not runner.busy
    return told.value


def test_what_does_not_fit_is_refused(folder: Path) -> None:
    runner, part = generate_runner(load(folder)), image_part(pictures(1)[0])
    bad(runner, [sound_part(sounds(1)[0])], BadArgument)
    bad(runner, [], BadArgument)
    bad(runner, [part, "x"], BadArgument, top_k=1)
    bad(runner, Prompt(tensors={}), NotSupported)
    bad(runner, ["<image> <image>", part], BadArgument, chat=False)
    assert bad(runner, [part, "x " * 200], TooLarge).limit == 160
    sound = {"type": "audio", "data": b"x"}
    for content in ([{"type": "image"}], ["x"], [{"type": "image", "data": "text"}], [sound]):
        bad(runner, Prompt(messages=[{"role": "user", "content": content}]), BadArgument)
    bad(runner, Prompt(messages=[{"content": "x"}]), BadArgument)
    bad(runner, Prompt(messages=[{"role": "user", "content": "x"}], template_options={"tokenize": True}), BadArgument)


def test_patches_of_any_number_are_put_together(tmp_path: Path) -> None:
    """Qwen2-VL: pictures become rows of patches without a batch dimension, and positions have three axes."""
    tokenizer = byte_level()
    special = ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
    tokenizer.add_special_tokens({"additional_special_tokens": special})
    ids = dict(zip(special, tokenizer.convert_tokens_to_ids(special), strict=True))
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]}
    text = {**SIZE, "vocab_size": 336, "eos_token_id": 1, "bos_token_id": None, "rope_parameters": rope,
            "num_key_value_heads": 2}  # fmt: skip
    eye = {"embed_dim": 32, "depth": 2, "num_heads": 2, "hidden_size": 32, "patch_size": 4}
    config = transformers.Qwen2VLConfig(
        text_config=text, vision_config=eye,
        image_token_id=ids["<|image_pad|>"], video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"], vision_end_token_id=ids["<|vision_end|>"],
    )  # fmt: skip
    size = {"shortest_edge": 64, "longest_edge": 1024}
    seer = transformers.Qwen2VLImageProcessorPil(patch_size=4, merge_size=2, size=size)
    tokenizer.chat_template = TEMPLATE.replace("<image>", "<|vision_start|><|image_pad|><|vision_end|>")
    save(tmp_path, build(config, "Qwen2VLForConditionalGeneration", 0, 4.0), tokenizer, seer)
    runner, given = generate_runner(load(tmp_path)), pictures(3)
    requests = [ask([image_part(p), text], TASK, text, sampling=FEW) for p, text in zip(given, QUESTIONS, strict=False)]
    seen = set()
    for picture, text, *events in zip(given, QUESTIONS, *together_and_alone(runner, requests), strict=False):
        prompt = f"[user]<|vision_start|><|image_pad|><|vision_end|>{text}[assistant]"
        expected = plain(tmp_path, prompt, [picture])
        assert [tokens(event) for event in events] == [expected] * 2
        seen.add(tuple(expected))
    assert len(seen) == 3
