"""Text, and how well a model tells what comes next in it."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from tiny_models import byte_level, config_of, random_module, silent, source_of

from llmos.drivers.contract import ModelSource
from llmos.drivers.transform.quality import given_text, own_text, perplexity
from llmos.syscalls.errors import BadArgument


def text_of(folder: Path, content: bytes) -> ModelSource:
    folder.mkdir()
    (folder / "t.txt").write_bytes(content)
    return source_of(folder)


def test_text_is_cut_in_pieces_of_which_every_third_is_measured_on(tmp_path: Path) -> None:
    content = bytes(range(97, 122)) * 40
    text = given_text(byte_level(), [text_of(tmp_path / "t", content)], 64)
    ids = byte_level()(content.decode(), add_special_tokens=False).input_ids
    count = len(ids) // 64
    assert text.learn.shape[1] == text.measure.shape[1] == 64
    assert len(text.measure) == (count + 1) // 3 and len(text.learn) + len(text.measure) == count
    assert text.learn[0].tolist() == ids[:64] and text.measure[0].tolist() == ids[64:128]


def test_text_that_is_none_or_too_short_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadArgument, match="too little"):
        given_text(byte_level(), [text_of(tmp_path / "short", b"a b")], 64)
    with pytest.raises(BadArgument, match=r"t\.txt is no text"):
        given_text(byte_level(), [text_of(tmp_path / "none", b"\xff\xfe\x00" * 90)], 64)


def test_a_model_writes_the_same_text_each_time() -> None:
    module = random_module(config_of("llama")).eval()
    one, other = own_text(module, 24, silent), own_text(module, 24, silent)
    assert torch.equal(one.learn, other.learn) and one.learn.shape == one.measure.shape == (16, 24)
    assert not torch.equal(one.learn, one.measure)
    assert perplexity(module, one.measure, silent, "x") < module.config.vocab_size


def test_perplexity_is_that_of_the_loss() -> None:
    module = random_module(config_of("llama")).eval()
    pieces = torch.randint(3, 250, (3, 40), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        loss = float(module(pieces, labels=pieces).loss)
    assert perplexity(module, pieces, silent, "x") == pytest.approx(math.exp(loss), rel=1e-4)
