"""Models that are quantized while they are loaded: what the same model stored so would be, in the room of that."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from load_peak import load_peak
from safetensors.torch import load_file, save_file
from tiny_models import PROMPT, ask, build, byte_level, choice, config_of, done, random_module, silent, source_of
from torch import nn

from llmos.drivers.contract import LoadSettings
from llmos.drivers.engine import loader
from llmos.drivers.engine.engine import Engine
from llmos.drivers.engine.quantized.library import stored
from llmos.drivers.engine.quantized.quantizing import quantize
from llmos.drivers.engine.quantized.stored import StoredEmbedding
from llmos.drivers.ops.quantized import Scheme
from llmos.drivers.ops.table import OpTable
from llmos.drivers.quant.nearest import nearest
from llmos.syscalls.errors import BadArgument, BadModel, NotSupported

MOST = 1.1
"""Memory at the peak of a load, as a share of what stays."""

W4: Mapping[str, Any] = {"width": 4, "group": 32}
W8: Mapping[str, Any] = {"width": 8, "group": 32}


def loaded(folder: Path, quant: Mapping[str, Any], dtype: str = "auto") -> Any:
    return loader.load(source_of(folder), LoadSettings(dtype=dtype, quant=quant), silent).module


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_layers_hold_the_nearest_numbers(llama: Path, dtype: str) -> None:
    plain = loader.load(source_of(llama), LoadSettings(dtype=dtype), silent).module
    layers = dict(stored(loaded(llama, W4, dtype)))
    wanted = {name for name, part in plain.named_modules() if type(part) is nn.Linear}
    assert set(layers) == wanted
    for name, layer in layers.items():
        assert layer.scheme == Scheme(8 if name == "lm_head" else 4, 32) and layer.activations == "int8"
        right = nearest(plain.get_submodule(name).weight, layer.scheme)
        assert torch.equal(layer.quantized.numbers, right.numbers) and torch.equal(layer.quantized.scale, right.scale)


def test_it_serves_in_the_room_that_was_planned(ops: OpTable, llama: Path) -> None:
    engine = Engine(ops)
    source, settings = source_of(llama), LoadSettings(quant=W4)
    whole = engine.plan(source, LoadSettings())[0].predicted
    planned = engine.plan(source, settings)[0].predicted
    model = engine.load("m", source, settings, silent)
    assert model.rung == "P" and planned < 0.5 * whole
    assert model.rows[0].allocator == pytest.approx(planned, rel=0.03)
    assert len(choice(engine, ask(PROMPT, max_tokens=8)).tokens) == 8
    plain = loader.load(source, LoadSettings(), silent).module
    assert model.parameters == sum(part.numel() for part in plain.parameters())


def test_biases_and_the_layers_that_are_kept(tmp_path: Path) -> None:
    folder = build(tmp_path, "qwen2")
    module = loaded(folder, {**W8, "keep": ["*.down_proj"], "head": 16})
    plain = loader.load(source_of(folder), LoadSettings(), silent).module
    layers = dict(stored(module))
    assert len(layers) == 2 * 6 and not any(name.endswith(("down_proj", "lm_head")) for name in layers)
    name = "model.layers.1.self_attn.k_proj"
    assert torch.equal(layers[name].bias, plain.get_submodule(name).bias)


def gemma(folder: Path) -> Path:
    module = random_module(config_of("gemma2", tie_word_embeddings=True))
    module.save_pretrained(folder)
    byte_level().save_pretrained(folder)
    return folder


@pytest.mark.parametrize("twice", [False, True])
def test_a_tied_embedding_reads_the_rows_of_the_head(ops: OpTable, tmp_path: Path, twice: bool) -> None:
    folder = gemma(tmp_path)
    if twice:
        tensors = load_file(folder / "model.safetensors")
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    module = loaded(folder, W4)
    embedding = module.get_input_embeddings()
    assert isinstance(embedding, StoredEmbedding) and embedding.head is module.lm_head
    plain = loader.load(source_of(folder), LoadSettings(), silent).module
    ids = torch.arange(20)
    torch.testing.assert_close(embedding(ids), plain.get_input_embeddings()(ids), atol=0.05, rtol=0.02)
    engine = Engine(ops)
    model = engine.load("m", source_of(folder), LoadSettings(quant=W4), silent)
    assert model.rows[0].allocator == pytest.approx(model.rows[0].predicted, rel=0.03)


def test_an_embedding_that_says_to_be_tied_and_is_not_stays(tmp_path: Path) -> None:
    folder = gemma(tmp_path)
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"] + 1
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    module = loaded(folder, W4)
    assert torch.equal(module.get_input_embeddings().weight, tensors["model.embed_tokens.weight"])
    torch.testing.assert_close(module.lm_head.weight, tensors["lm_head.weight"], atol=0.05, rtol=0.02)


def test_parts_are_quantized_as_the_whole() -> None:
    torch.manual_seed(0)
    weight, scheme = torch.randn(2050, 2048), Scheme(8, 0, "float")
    seen: list[int] = []
    made, whole = quantize(weight, scheme, lambda: seen.append(1)), nearest(weight, scheme)
    assert torch.equal(made.dequantized(), whole.dequantized()) and len(seen) == 2


@pytest.mark.parametrize(
    ("quant", "error", "said"),
    [
        ({"width": 8, "method": "gptq"}, NotSupported, "runs text through the model"),
        ({"width": 8, "byte_budget": 100}, NotSupported, "byte budget"),
        ({"width": 5}, BadArgument, "no scheme"),
        ({"colour": 5}, BadArgument, "colour"),
        ({"width": 8, "keep": ["*"]}, BadArgument, "no linear layers"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_read(
    ops: OpTable, llama: Path, quant: Mapping[str, Any], error: type[NotSupported | BadArgument], said: str
) -> None:
    with pytest.raises(error, match=said):
        Engine(ops).plan(source_of(llama), LoadSettings(quant=quant))


def test_weights_of_another_shape_are_the_files_fault(llama: Path, copied: Any) -> None:
    folder = copied()
    tensors = load_file(folder / "model.safetensors")
    name = "model.layers.1.mlp.up_proj.weight"
    tensors[name] = tensors[name][:, :32].clone()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BadModel, match="another shape of"):
        loaded(folder, W8)


@pytest.fixture(scope="module")
def half_billion(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1 GB of bfloat16 in four files, a quarter of it an output layer that is the embedding, too."""
    folder = tmp_path_factory.mktemp("half-billion")
    config = transformers.Qwen2Config(
        vocab_size=151_936, hidden_size=896, intermediate_size=4864, num_hidden_layers=24, num_attention_heads=14,
        num_key_value_heads=2, max_position_embeddings=256, tie_word_embeddings=True,
    )  # fmt: skip
    module = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    module.save_pretrained(folder, max_shard_size="250MB")
    byte_level().save_pretrained(folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("quant", [{"width": 8, "group": 0}, {"width": 4}], ids=["w8", "w4"])
def test_little_more_memory_is_needed_than_what_stays(
    llama: Path, half_billion: Path, quant: Mapping[str, Any]
) -> None:
    """In a process of its own."""
    found = load_peak(llama, half_billion, quant)
    assert found.rung == "P" and found.held < found.stays < 1.3 * found.held
    assert found.peak < MOST * found.stays, f"{found.peak / found.stays:.2f} of the {found.stays >> 20} MiB that stay"


def test_an_encoder_and_its_embeddings(ops: OpTable, bert: Path) -> None:
    found = []
    for quant in (None, {"width": 8, "group": 32, "activations": "model"}):
        engine = Engine(ops)
        model = engine.load("m", source_of(bert), LoadSettings(quant=quant), silent)
        assert model.rung == "F" and bool(quant) == any("quantized" in reason for reason in model.rung_reasons)
        found.append(torch.tensor(done(engine, ask("the quick fox", task="embed")).embeddings[0]))
    assert not torch.equal(*found)
    torch.testing.assert_close(*found, atol=0.05, rtol=0.05)
