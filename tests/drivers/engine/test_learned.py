"""Tokens before each text: what a folder holds of them, and what does not fit is said."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny_models
import torch
import transformers
from safetensors.torch import load_file, save_file

from llmos.drivers.contract import LoadSettings
from llmos.drivers.engine import learned
from llmos.drivers.engine.engine import Engine
from llmos.drivers.ops.reference import register_reference
from llmos.drivers.ops.table import OpTable
from llmos.syscalls.errors import BadModel, NotSupported

FIRST = [7, 8, 9]


@pytest.fixture
def engine() -> Engine:
    table = OpTable()
    register_reference(table)
    return Engine(table)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Its learned tokens are those of a text: what it says is what the bare model says after that text."""
    made = tiny_models.build(tmp_path / "m")
    module = transformers.AutoModelForCausalLM.from_pretrained(made).eval()
    with torch.no_grad():
        cache = module(input_ids=torch.tensor([FIRST]), use_cache=True).past_key_values
    learned.write([(layer.keys, layer.values) for layer in cache.layers], made)
    return made


def test_they_are_as_a_text_before_each_text(folder: Path, engine: Engine) -> None:
    plain = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    told = engine.load("m", tiny_models.source_of(folder), LoadSettings(dtype="float32"), tiny_models.silent)
    assert told.rung == "G" and engine.base("m").bundle.about.learned == 3
    for text in ([5, 6], [5], list(range(3, 40))):
        wanted, _ = tiny_models.greedy(plain, [*FIRST, *text], 10)
        assert tiny_models.choice(engine, tiny_models.ask(text, max_tokens=10)).tokens == wanted


def test_a_conversation_has_them_once(folder: Path, engine: Engine) -> None:
    plain = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    engine.load("m", tiny_models.source_of(folder), LoadSettings(dtype="float32"), tiny_models.silent)
    engine.open_context("c", "m", "", 0)
    first = tiny_models.choice(engine, tiny_models.ask([5, 6], id="r1", context="c", max_tokens=4)).tokens
    second = tiny_models.choice(engine, tiny_models.ask([8], id="r2", context="c", max_tokens=4)).tokens
    assert first == tiny_models.greedy(plain, [*FIRST, 5, 6], 4)[0]
    assert second == tiny_models.greedy(plain, [*FIRST, 5, 6, *first, 8], 4)[0]


def test_another_rung_and_beams_are_refused(folder: Path, engine: Engine) -> None:
    source = tiny_models.source_of(folder)
    with pytest.raises(NotSupported, match="learned tokens stand before each text"):
        engine.load("m", source, LoadSettings(rung="P"), tiny_models.silent)
    told = engine.load("m", source, LoadSettings(), tiny_models.silent)
    assert told.tasks == ["text-generation", "tokenize", "detokenize"]
    with pytest.raises(NotSupported, match="leave them at 1"):
        engine.submit(tiny_models.ask([5], max_tokens=2, beams=2))


def test_what_does_not_fit_is_refused(folder: Path, engine: Engine) -> None:
    file = folder / learned.FILE
    held = load_file(file)
    one = held["0.key"]
    wrong = (
        {name: value for name, value in held.items() if name != "1.value"},
        {**held, "2.key": one.clone(), "2.value": one.clone()},
        {**held, "0.key": one[:, :2].contiguous()}, {**held, "0.key": one[0].contiguous()},
        {**held, "0.key": torch.full_like(one, torch.nan)},
    )  # fmt: skip
    for tensors in wrong:
        save_file(tensors, file)
        with pytest.raises(BadModel) as raised:
            engine.load("m", tiny_models.source_of(folder), LoadSettings(), tiny_models.silent)
        assert raised.value.file == learned.FILE
