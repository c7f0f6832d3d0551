"""Quantized models as they are written."""

from __future__ import annotations

import json
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file
from tiny_models import build, silent, source_of

from llmos.drivers.contract import LoadSettings
from llmos.drivers.engine import loader
from llmos.drivers.engine.mapped import HEAP, STEP, resident_bytes, trim_heap
from llmos.drivers.ops.quantized import Scheme, round_to_nearest
from llmos.drivers.transform import shards
from llmos.drivers.transform.writing import Writing

W8 = Scheme(8, 32)
LAYER = "model.layers.0.mlp.down_proj"


def test_what_was_quantized_and_changed_is_written_and_all_else_copied(tmp_path: Path) -> None:
    source = source_of(build(tmp_path / "m", tie_word_embeddings=True))
    module = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "m")
    (tmp_path / "out").mkdir()
    norm = module.model.layers[1].input_layernorm
    with shards.opened(source) as tensors, torch.inference_mode():
        writing = Writing(tmp_path / "out", tensors, module)
        assert writing.stored("lm_head") == ["model.embed_tokens.weight"] and writing.stored("lm_tail") == []
        for name in ("lm_head", LAYER):
            writing.add(name, round_to_nearest(module.get_submodule(name).weight, W8))
        norm.weight.data = norm.weight * 3
        writing.change("model.layers.1.input_layernorm", ["weight"], norm)
        assert writing.bytes_of(LAYER) == 64 * 128 * 4
        writing.close("model", silent)
    stored, before = load_file(tmp_path / "out" / "model.safetensors"), load_file(tmp_path / "m" / "model.safetensors")
    gone = {"model.embed_tokens.weight", f"{LAYER}.weight"}
    assert set(before) - set(stored) == gone
    parts = {f"{name}.{part}" for name in ("lm_head", LAYER) for part in ("numbers", "scale")}
    assert set(stored) - set(before) == parts
    for name in set(before) - gone:
        factor = 3 if name == "model.layers.1.input_layernorm.weight" else 1
        assert torch.equal(stored[name], before[name] * factor)
    assert sum(tensor.nbytes for tensor in stored.values()) == writing.bytes
    said = json.loads((tmp_path / "out" / "config.json").read_text())["quantization_config"]
    assert said["activations"] == "model" and set(said["modules"]) == {"lm_head", LAYER}
    loaded = loader.load(source_of(tmp_path / "out"), LoadSettings(), silent).module
    wanted = round_to_nearest(module.lm_head.weight, W8).dequantized()
    assert torch.equal(loaded.model.embed_tokens(torch.arange(5)), wanted[:5])


def test_what_the_heap_has_free_after_a_layer_is_given_back(tmp_path: Path) -> None:
    module = transformers.AutoModelForCausalLM.from_pretrained(build(tmp_path / "m"))
    (tmp_path / "out").mkdir()
    with shards.opened(source_of(tmp_path / "m")) as tensors, torch.inference_mode():
        writing = Writing(tmp_path / "out", tensors, module)
        made = round_to_nearest(module.get_submodule(LAYER).weight, W8)
        trim_heap()  # else the scraps go where earlier tests have left room
        before = resident_bytes(HEAP)
        scraps = [b"x" * (30_000 + n % 2) for n in range(4000)][::6]  # and holes between them
        assert resident_bytes(HEAP) > before + 4 * STEP
        writing.add(LAYER, made)
        assert resident_bytes(HEAP) < before + 3 * STEP and scraps
