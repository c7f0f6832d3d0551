"""Folders of other projects answer as the models of the weights they mean."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from foreign_checkpoints import as_awq, as_gptq, drawn, meant
from llmos.drivers.contract import LoadSettings
from llmos.drivers.engine import loader
from llmos.drivers.engine.quantized.library import stored
from llmos.syscalls.errors import BadModel, NotSupported
from load_peak import load_peak
from safetensors.torch import load_file, save_file
from tiny_models import build, byte_level, config_of, greedy, silent, source_of

GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 32}
AWQ = {"quant_method": "awq", "bits": 4, "group_size": 32}
PROMPT = [3, 4, 5, 6]
MOST, TABLES = 1.1, 16 << 20
"""Memory at the peak of a load, as a share of what stays, and beside that."""


def foreign(folder: Path, settings: dict[str, Any], packed: Callable[[str, Any], dict[str, Any]]) -> Path:
    """Quantize the linear layers of a model's decoder as another project does; the folder of the weights they mean."""
    tensors = load_file(folder / "model.safetensors")
    whole = dict(tensors)
    chosen = [name for name in tensors if name.endswith("proj.weight") or ".experts." in name]
    for at, name in enumerate(chosen):
        outs, ins = tensors.pop(name).shape
        layer = drawn(outs, ins, 32, 4, seed=at)
        tensors |= packed(name.removesuffix(".weight"), layer)
        whole[name] = meant(layer, np.arange(ins) // 32).to(whole[name].dtype)
    twin = folder.with_name("twin")
    twin.mkdir()
    for file in folder.iterdir():
        (twin / file.name).write_bytes(file.read_bytes())
    save_file(whole, twin / "model.safetensors", metadata={"format": "pt"})
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "quantization_config": settings}))
    return twin


def loaded(folder: Path) -> Any:
    return loader.load(source_of(folder), LoadSettings(dtype="float32"), silent)


@pytest.mark.parametrize(
    ("settings", "packed"),
    [(GPTQ, lambda name, layer: as_gptq(name, layer, 4)), (AWQ, as_awq)],
    ids=["gptq", "awq"],
)
@pytest.mark.parametrize("name", ["llama", "qwen2"])
def test_the_model_answers_as_the_one_of_the_weights_that_are_meant(
    tmp_path: Path, settings: dict[str, Any], packed: Any, name: str
) -> None:
    folder = build(tmp_path / "m", name, hidden_size=64, intermediate_size=96)
    twin = foreign(folder, settings, packed)
    bundle, other = loaded(folder), loaded(twin)
    assert {layer.scheme.width for _, layer in stored(bundle.module)} == {4}
    assert len(stored(bundle.module)) == 7 * bundle.about.config.num_hidden_layers
    for _, layer in stored(bundle.module):
        layer.activations = "model"
    tokens, logits = greedy(bundle.module, PROMPT, 8)
    wanted, expected = greedy(other.module, PROMPT, 8)
    assert tokens == wanted and torch.allclose(logits, expected, atol=1e-4)
    assert bundle.eos == other.eos and bundle.about.foreign is None


def test_other_methods_and_wishes_are_refused(tmp_path: Path) -> None:
    folder = build(tmp_path / "m", hidden_size=64, intermediate_size=96)
    foreign(folder, GPTQ | {"bits": 7}, lambda name, layer: as_gptq(name, layer, 4))
    with pytest.raises(NotSupported, match=r"models/m: GPTQ of 7 bits .* load the original weights"):
        loaded(folder)
    with pytest.raises(NotSupported, match="quantized already"):
        loader.load(source_of(folder), LoadSettings(quant={"width": 8}), silent)


@pytest.mark.parametrize(
    "settings", [{"quant_method": []}, {"bits": "four"}, {"bits": float("inf")}, {"group_size": "all"}], ids=str
)
def test_settings_that_make_no_sense_are_the_files_fault(tmp_path: Path, settings: dict[str, Any]) -> None:
    folder = build(tmp_path / "m", hidden_size=64, intermediate_size=96)
    foreign(folder, {**GPTQ, **settings}, lambda name, layer: as_gptq(name, layer, 4))
    with pytest.raises((BadModel, NotSupported)):
        loaded(folder)


@pytest.mark.parametrize("lost", [".qzeros", ".scales"])
def test_layers_that_lack_a_part_are_the_files_fault(tmp_path: Path, lost: str) -> None:
    folder = build(tmp_path / "m", hidden_size=64, intermediate_size=96)
    foreign(folder, GPTQ, lambda name, layer: {
        part: tensor for part, tensor in as_gptq(name, layer, 4).items() if not part.endswith(lost)
    })  # fmt: skip
    with pytest.raises(BadModel):
        loaded(folder)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GPTQ checkpoint of 400 million weights, 215 MB in several files, of random numbers."""
    folder = tmp_path_factory.mktemp("large")
    hidden, inner, layers, group = 1024, 4096, 24, 128
    sizes = {"hidden_size": hidden, "intermediate_size": inner, "num_hidden_layers": layers, "dtype": "bfloat16"}
    config = config_of("llama", **sizes, num_attention_heads=16, num_key_value_heads=16, head_dim=64)
    config.quantization_config = {**GPTQ, "group_size": group, "sym": True}
    config.architectures = ["LlamaForCausalLM"]
    config.save_pretrained(folder)
    byte_level().save_pretrained(folder)
    linear = {f"self_attn.{part}_proj": (hidden, hidden) for part in "qkvo"}
    linear |= {"mlp.gate_proj": (inner, hidden), "mlp.up_proj": (inner, hidden), "mlp.down_proj": (hidden, inner)}
    random = torch.Generator().manual_seed(0)
    placed: dict[str, str] = {}

    def save(number: int, tensors: dict[str, torch.Tensor]) -> None:
        save_file(tensors, folder / f"part-{number}.safetensors", metadata={"format": "pt"})
        placed.update(dict.fromkeys(tensors, f"part-{number}.safetensors"))

    for number in range(layers):
        tensors = {f"model.layers.{number}.{part}_layernorm.weight": torch.ones(hidden, dtype=torch.bfloat16)
                   for part in ("input", "post_attention")}  # fmt: skip
        for part, (outs, ins) in linear.items():
            name = f"model.layers.{number}.{part}"
            tensors[f"{name}.qweight"] = torch.randint(-(2**31), 2**31, (ins // 8, outs), generator=random).int()
            tensors[f"{name}.qzeros"] = torch.full((ins // group, outs // 8), 0x77777777, dtype=torch.int32)
            tensors[f"{name}.scales"] = torch.full((ins // group, outs), 0.2 * ins**-0.5, dtype=torch.float16)
            tensors[f"{name}.g_idx"] = (torch.arange(ins) // group).int()
        save(number, tensors)
    ends = {f"{name}.weight": torch.randn(config.vocab_size, hidden, generator=random).bfloat16()
            for name in ("model.embed_tokens", "lm_head")}  # fmt: skip
    save(layers, {**ends, "model.norm.weight": torch.ones(hidden, dtype=torch.bfloat16)})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": placed}))
    return folder


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak of a process is not told here")
def test_little_more_memory_is_needed_than_what_stays(llama: Path, large: Path) -> None:
    found = load_peak(llama, large)
    print(f"peak {found.peak >> 20} MiB, {found.stays >> 20} stay, {found.held >> 20} are weights")
    assert found.rung == "P" and 190 << 20 < found.held < found.stays < 1.3 * found.held
    assert found.peak < MOST * found.stays + TABLES, f"{found.peak >> 20} MiB for {found.stays >> 20} that stay"
