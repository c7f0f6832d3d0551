"""Texts to lines and batches: what padding may do, and where tokens stand."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_kinds import labels, load, pair_tokenizer, text_model

from llmos.drivers.contract import MediaPart, Prompt
from llmos.drivers.engine.tasks.text import TextFront
from llmos.syscalls.errors import BadArgument, TooLarge


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return text_model(tmp_path_factory.mktemp("m"), "BertForSequenceClassification", **labels("a", "b", "c"))


@pytest.fixture
def front(folder: Path) -> TextFront:
    return TextFront(load(folder))


BART: dict[str, Any] = {
    "d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_ffn_dim": 32,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 32, "eos_token_id": 3, "decoder_start_token_id": 2,
}  # fmt: skip


@pytest.mark.parametrize(
    ("family", "fields", "batching"),
    [
        ("Bert", {}, "padded"), ("Bart", BART, "padded"), ("FNet", {}, "equal"), ("Llama", {}, "padded"),
        ("GPT2", {"n_embd": 32, "n_layer": 1, "n_head": 2}, "padded"),
    ],
)  # fmt: skip
def test_how_lines_are_batched_is_found_out(
    tmp_path: Path, family: str, fields: dict[str, Any], batching: str
) -> None:
    name = f"{family}ForSequenceClassification"
    bundle = load(text_model(tmp_path, name, family=family, num_labels=3, **fields))
    front = TextFront(bundle)
    with torch.inference_mode():
        front.settle(bundle.module)
    assert front.batching == batching


def test_a_model_that_finds_no_ends_of_lines_takes_one_at_a_time(tmp_path: Path) -> None:
    tokenizer = pair_tokenizer(pad_token=None)
    name = "LlamaForSequenceClassification"
    bundle = load(text_model(tmp_path, name, family="Llama", tokenizer=tokenizer, pad_token_id=None))
    front = TextFront(bundle)
    with torch.inference_mode():
        front.settle(bundle.module)
    assert front.batching == "single"
    assert front.encode("fox").line.shape != front.encode("fox").line.shape


def test_a_batch_is_padded_at_the_right(front: TextFront) -> None:
    short, long = front.encode("fox"), front.encode("fox", "the dog")
    batch = front.collate([short.line, long.line])
    size = len(long.ids)
    assert batch["input_ids"].tolist() == [[*short.ids, *[0] * (size - len(short.ids))], list(long.ids)]
    assert batch["attention_mask"].sum(dim=1).tolist() == [len(short.ids), size]
    assert batch["token_type_ids"][1].tolist() == [int(part == 1) for part in long.parts[:-1]] + [1]


def test_padding_inside_given_ids_does_not_count(front: TextFront) -> None:
    _, encoded = front.one(Prompt(ids=[2, 40, 3, 0, 0]))
    assert encoded.line.inputs["attention_mask"].tolist() == [1, 1, 1, 0, 0]


def test_words_are_whole_or_not(front: TextFront) -> None:
    text = "jumps brownfox"
    encoded = front.encode(text)
    middle = next(at for at, word in enumerate(encoded.words) if encoded.words[at - 1] == word == encoded.words[at + 1])
    assert text[slice(*encoded.characters(middle, middle, whole_words=True))] in ("jumps", "brownfox")
    assert text[slice(*encoded.characters(middle, middle, whole_words=False))] not in ("jumps", "brownfox")
    last = len(encoded.ids) - 2
    assert text[slice(*encoded.characters(1, last, whole_words=True))] == text


def test_texts_are_those_of_the_prompt(front: TextFront) -> None:
    assert front.texts(Prompt(text="a"), "texts") == ["a"]
    assert front.texts(Prompt(parts=["a", "b"]), "texts", least=2) == ["a", "b"]
    for prompt in (Prompt(ids=[1]), Prompt(parts=[]), Prompt(parts=["a", MediaPart("image", memoryview(b""))])):
        with pytest.raises(BadArgument, match="texts"):
            front.texts(prompt, "texts")


def test_a_text_that_cannot_fit_is_refused_unread(front: TextFront) -> None:
    with pytest.raises(TooLarge) as error:
        front.encode("x" * 10_000_000)
    assert error.value.limit == 128
    cut = front.encode("fox " * 1_000_000, most=128)
    assert len(cut.ids) == 128 and cut.truncated


def test_a_cut_that_leaves_nothing_is_refused(front: TextFront) -> None:
    with pytest.raises(BadArgument, match="3 special tokens"):
        front.encode("fox", "dog", most=3)
    assert len(front.encode("fox", "dog", most=5).ids) == 5


def test_windows_share_their_stride_and_cover_the_text(front: TextFront) -> None:
    text = "the quick brown fox jumps over the lazy dog " * 10
    windows = front.windows((text,), 32, 8, "longest_first")
    assert all(len(window.ids) <= 32 for window in windows)
    for one, other in pairwise(windows):
        assert list(one.ids[-9:-1]) == list(other.ids[1:9])
    assert windows[0].offsets[1][0] == 0 and windows[-1].offsets[-2][1] == len(text.rstrip())
    default = front.windows((text,), 32, None, "longest_first")
    assert list(default[0].ids[-16:-1]) == list(default[1].ids[1:16])
