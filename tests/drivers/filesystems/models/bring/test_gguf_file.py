"""GGUF files: the same numbers come out, in each architecture that is said to be converted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from llmos.drivers.contract import ModelSource, SourceFile
from llmos.drivers.filesystems.models.bring import gguf_file
from llmos.drivers.filesystems.models.filesystem import ModelsFileSystem
from llmos.syscalls.errors import BadModel, NotSupported
from perf.peers.gguf_file import ARCHITECTURES, write
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config, Qwen3Config

OpenModels = Callable[..., ModelsFileSystem]
SIZES: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 64, "max_position_embeddings": 128, "tie_word_embeddings": False,
}  # fmt: skip


def quiet(*_said: Any) -> None:
    """Progress that nobody watches."""


def source_of(path: Path) -> ModelSource:
    return ModelSource(f"/{path.name}", "1", [SourceFile(path.name, path, path.stat().st_size)])


CONFIGS = (LlamaConfig(**SIZES), Qwen2Config(**SIZES), Qwen3Config(**SIZES, head_dim=128))


@pytest.mark.slow
@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.model_type)
def test_the_weights_come_out_as_they_went_in(
    config: Any, models: OpenModels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ARCHITECTURES, "qwen3", gguf.MODEL_ARCH.QWEN3)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.save_pretrained(tmp_path / "whole")
    write(tmp_path / "whole", tmp_path / "fox.gguf")
    answer = models().bring("/fox", [source_of(tmp_path / "fox.gguf")], {"options": {}}, quiet)
    assert answer["version"] == "1"
    system = models()
    token, source = system.locate("/fox")
    system.release(token)
    manifest = source.manifest
    assert (manifest["origin"], manifest["dtype"]) == ("gguf fox.gguf (F16)", "bfloat16")
    assert manifest["architecture"] == type(model).__name__ and manifest["context"] == 128
    found = load_file(next(file.path for file in source.files if file.name == "model.safetensors"))
    wanted = model.state_dict()
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        torch.testing.assert_close(found[name].float(), tensor, atol=2e-3, rtol=1e-2)


def test_what_is_not_converted_is_named(models: OpenModels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "bert.gguf"
    writer = gguf.GGUFWriter(path, "bert")
    writer.add_block_count(1)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with pytest.raises(NotSupported, match="'bert'; converted are llama, qwen2, qwen3"):
        models().bring("/x", [source_of(path)], {"options": {}}, quiet)
    path.write_bytes(b"PK not gguf")
    with pytest.raises(BadModel, match="is no GGUF file"):
        models().bring("/x", [source_of(path)], {"options": {}}, quiet)
    path.write_bytes(b"GGUF\x03\0\0\0" + b"\xff" * 40)
    with pytest.raises(BadModel, match="is damaged"):
        models().bring("/x", [source_of(path)], {"options": {}}, quiet)
    monkeypatch.setattr(gguf_file.importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(NotSupported, match="llmos\\[formats\\]"):
        models().bring("/x", [source_of(path)], {"options": {}}, quiet)
    assert not (tmp_path / "models/x").exists()
