"""Folders of quantized weights answer as the models of their dequantized weights, on every way through the engine."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from lora_folders import TARGETS, base_of, save_adapter
from quantized_folders import W4, W8, quantize
from tiny_models import PROMPT, ask, build, byte_level, choice, config_of, done, random_module, silent, source_of

from llmos.drivers.contract import LoadSettings
from llmos.drivers.engine import loader
from llmos.drivers.engine.engine import Engine
from llmos.drivers.engine.quantized.library import stored
from llmos.drivers.ops.quantized import Scheme
from llmos.drivers.ops.table import OpTable
from llmos.syscalls.errors import BadModel, NotSupported

Stored = Callable[..., tuple[Path, Path]]


@pytest.fixture
def tied(tmp_path: Path) -> Path:
    """A gemma, whose embedding is its head, times a scale."""
    folder = tmp_path / "gemma2"
    module = random_module(config_of("gemma2", tie_word_embeddings=True))
    with torch.no_grad():
        module.get_input_embeddings().weight.mul_(0.1)
    module.save_pretrained(folder)
    byte_level().save_pretrained(folder)
    return folder


def same_tokens(ops: OpTable, folders: tuple[Path, Path], rung: str = "") -> None:
    found = []
    for folder in folders:
        engine = Engine(ops)
        model = engine.load("m", source_of(folder), LoadSettings(rung=rung), silent)
        assert model.rung == (rung or "P"), model.rung_reasons
        found.append(choice(engine, ask(PROMPT, max_tokens=16)).tokens)
        for row in engine.memory():
            if row.what == "weights":
                assert row.predicted == pytest.approx(row.allocator, rel=0.03)
    assert found[0] == found[1]


@pytest.mark.parametrize("rung", ["P", "G"])
def test_a_llama(ops: OpTable, llama: Path, tmp_path: Path, rung: str) -> None:
    same_tokens(ops, quantize(llama, tmp_path, W4), rung)


def test_adapters_beside_quantized_weights(ops: OpTable, llama: Path, tmp_path: Path) -> None:
    adapter = save_adapter(base_of(llama), tmp_path / "adapter", **TARGETS["llama"])
    found = []
    for folder in quantize(llama, tmp_path, W4):
        engine = Engine(ops)
        engine.load("m", source_of(folder), LoadSettings(), silent)
        engine.load("a", source_of(adapter), LoadSettings(), silent, "m")
        found.append([choice(engine, ask(PROMPT, model=model, max_tokens=12)).tokens for model in ("m", "a")])
    assert found[0] == found[1] and found[0][0] != found[0][1]


@pytest.mark.parametrize("scheme", [Scheme(8, 0, "float"), Scheme(4, 128, shift=True), Scheme(8, 0)], ids=str)
def test_schemes_and_biases(ops: OpTable, tmp_path: Path, scheme: Scheme) -> None:
    same_tokens(ops, quantize(build(tmp_path / "qwen2", "qwen2"), tmp_path / "made", scheme, head=None))


def test_a_tied_head_is_held_once(ops: OpTable, tied: Path, tmp_path: Path) -> None:
    folders = quantize(tied, tmp_path, W4, W8)
    bundle = loader.load(source_of(folders[0]), LoadSettings(), silent)
    names = {name for name, _ in bundle.module.named_parameters()}
    assert not any("embed_tokens" in name or "lm_head" in name for name in names)
    same_tokens(ops, folders)


def test_experts_stay_wide(ops: OpTable, tmp_path: Path) -> None:
    folders = quantize(build(tmp_path / "mixtral", "mixtral"), tmp_path / "made", W8)
    same_tokens(ops, folders)


def test_an_encoder(ops: OpTable, bert: Path, tmp_path: Path) -> None:
    found = []
    for folder in quantize(bert, tmp_path, W8, auto=transformers.AutoModel):
        engine = Engine(ops)
        engine.load("m", source_of(folder), LoadSettings(), silent)
        found.append(torch.tensor(done(engine, ask("the quick fox", task="embed")).embeddings[0]))
    torch.testing.assert_close(found[0], found[1], atol=1e-4, rtol=1e-4)


def damaged(folder: Path, **changes: Any) -> Path:
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] |= changes
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_names_and_methods_that_are_not_known(llama: Path, tmp_path: Path) -> None:
    folder, _ = quantize(llama, tmp_path, W8)
    modules = {"model.layers.7.mlp.up_proj": {"width": 8}}
    with pytest.raises(BadModel, match="up_proj is quantized, but is no linear layer"):
        loader.load(source_of(damaged(folder, modules=modules)), LoadSettings(), silent)
    with pytest.raises(NotSupported, match="quantized by aqlm"):
        loader.load(source_of(damaged(folder, quant_method="aqlm")), LoadSettings(), silent)


@pytest.mark.parametrize(
    ("part", "dtype"), [("scale", torch.bfloat16), ("scale", torch.float64), ("numbers", torch.int8)], ids=str
)
def test_parts_of_another_dtype_are_refused(llama: Path, tmp_path: Path, part: str, dtype: torch.dtype) -> None:
    folder, _ = quantize(llama, tmp_path, W8)
    tensors = load_file(folder / "model.safetensors")
    name = f"model.layers.1.mlp.up_proj.{part}"
    save_file({**tensors, name: tensors[name].to(dtype)}, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BadModel, match=r"the numbers of model.layers.1.mlp.up_proj are"):
        loader.load(source_of(folder), LoadSettings(), silent)


def test_schemes_are_whole_numbers(llama: Path, tmp_path: Path) -> None:
    folder, _ = quantize(llama, tmp_path, W8)
    modules = {"model.layers.1.mlp.up_proj": {"width": 8.0, "group": 32}}
    with pytest.raises(BadModel, match=r"the scheme of model.layers.1.mlp.up_proj is not valid"):
        loader.load(source_of(damaged(folder, modules=modules)), LoadSettings(), silent)


def test_scales_stay_what_they_are_stored_as(llama: Path, tmp_path: Path) -> None:
    folder, _ = quantize(llama, tmp_path, W8)
    module = loader.load(source_of(folder), LoadSettings(dtype="bfloat16"), silent).module
    layers = stored(module)
    assert len(layers) == 15
    assert {layer.scale.dtype for _, layer in layers} == {torch.float16}
    for _, layer in layers:
        assert layer(torch.ones(1, layer.in_features, dtype=torch.bfloat16)).dtype == torch.bfloat16
