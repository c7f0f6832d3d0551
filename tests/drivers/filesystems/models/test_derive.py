from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llmos.drivers.filesystems.models.derive import derive, weight_files
from llmos.drivers.filesystems.models.scan import scan
from llmos.syscalls.errors import BadModel
from safetensors.numpy import save


def derived(folder: Path) -> dict[str, Any]:
    return derive("name", scan(folder).files)


def test_a_plain_folder_says_what_it_is(tmp_path: Path, make_model: Any) -> None:
    make_model(tmp_path, {"training_args.bin": b"\x80\x04", "tokenizer_config.json": b'{"chat_template": "{{ x }}"}'})
    found = derived(tmp_path)
    names = [file["name"] for file in found.pop("files")]
    assert names == ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]
    assert found == {
        "format": 1, "name": "name", "architecture": "LlamaForCausalLM", "tasks": ["text-generation"], "parameters": 9,
        "dtype": "float32", "quant": None, "context": 256, "tokenizer": "tokenizer.json", "chat_template": True,
        "bytes_by_dtype": {"float32": 36, "bfloat16": 18, "int8": 12, "int4": 9},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("config", "tasks"),
    [
        ({"architectures": ["GPT2LMHeadModel"]}, ["text-generation"]),
        ({"architectures": ["BertForMaskedLM"]}, ["fill-mask"]),
        ({"architectures": ["BertModel"]}, ["feature-extraction"]),
        ({"architectures": ["T5ForConditionalGeneration"]}, ["text2text-generation"]),
        ({"architectures": ["WhisperForConditionalGeneration"], "num_mel_bins": 80}, ["automatic-speech-recognition"]),
        ({"architectures": ["LlavaForConditionalGeneration"], "vision_config": {}}, ["image-text-to-text"]),
        ({"architectures": ["Unheard"]}, []),
        ({"architectures": 5, "model_type": "llama"}, []),
        ({}, []),
    ],
)
def test_tasks_follow_from_the_architecture(tmp_path: Path, make_model: Any, config: Any, tasks: list[str]) -> None:
    make_model(tmp_path, {"config.json": json.dumps(config).encode()})
    assert derived(tmp_path)["tasks"] == tasks


@pytest.mark.parametrize(
    ("config", "context"),
    [
        ({"n_positions": 1024}, 1024),
        ({"text_config": {"max_position_embeddings": 4096}}, 4096),
        ({"max_position_embeddings": "many", "n_ctx": 7}, 7),
        ({"text_config": 5}, 0),
        ({}, 0),
    ],
)
def test_the_context_is_found_under_its_many_names(tmp_path: Path, make_model: Any, config: Any, context: int) -> None:
    make_model(tmp_path, {"config.json": json.dumps(config).encode()})
    assert derived(tmp_path)["context"] == context


def test_an_adapter_names_its_base(tmp_path: Path, make_model: Any) -> None:
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": "/models/tiny"}
    make_model(tmp_path, {"config.json": None, "adapter_config.json": json.dumps(config).encode()})
    (tmp_path / "model.safetensors").rename(tmp_path / "adapter_model.safetensors")
    found = derived(tmp_path)
    assert (found["architecture"], found["tasks"], found["parameters"]) == ("LORA adapter", ["text-generation"], 9)
    assert found["parents"] == [{"path": "/models/tiny", "version": "", "how": "adapter"}]


def test_shards_are_those_of_the_index(tmp_path: Path, make_model: Any) -> None:
    whole = (make_model(tmp_path) / "model.safetensors").read_bytes()
    make_model(tmp_path, {"model.safetensors": None, "a.safetensors": whole, "b.safetensors": whole,
                          "other.safetensors": whole})  # fmt: skip
    (tmp_path / "model.safetensors").unlink()
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"x": "b.safetensors", "y": "a.safetensors", "z": "b.safetensors"}}))
    assert weight_files(scan(tmp_path).files) == ["a.safetensors", "b.safetensors"]
    assert derived(tmp_path)["parameters"] == 18
    index.unlink()
    assert len(weight_files(scan(tmp_path).files)) == 3


@pytest.mark.parametrize(
    ("index", "file"),
    [
        ({"weight_map": {"x": "missing.safetensors"}}, "missing.safetensors"),
        ({"weight_map": {"x": "../up.safetensors"}}, "../up.safetensors"),
        ({"weight_map": {"x": "config.json"}}, "config.json"),
        ({"weight_map": {"x": 1}}, "model.safetensors.index.json"),
        ({}, "model.safetensors.index.json"),
    ],
)
def test_a_bad_index_names_the_file(tmp_path: Path, make_model: Any, index: Any, file: str) -> None:
    make_model(tmp_path, {"model.safetensors.index.json": json.dumps(index).encode()})
    with pytest.raises(BadModel) as caught:
        derived(tmp_path)
    assert caught.value.file == file


def test_the_dtype_is_that_of_most_bytes_or_of_the_configuration(tmp_path: Path, make_model: Any) -> None:
    mixed = save({"big": np.zeros(100, np.float16), "small": np.zeros(3, np.float64)})
    make_model(tmp_path, {"model.safetensors": mixed})
    assert derived(tmp_path)["dtype"] == "float16"
    make_model(tmp_path, {"config.json": b'{"torch_dtype": "bfloat16"}', "model.safetensors": save({})})
    assert derived(tmp_path)["dtype"] == "bfloat16"


def test_damaged_weights_are_named(tmp_path: Path, make_model: Any) -> None:
    whole = (make_model(tmp_path) / "model.safetensors").read_bytes()
    make_model(tmp_path, {"model.safetensors": whole[:-1]})
    with pytest.raises(BadModel, match="truncated") as caught:
        derived(tmp_path)
    assert caught.value.file == "model.safetensors"
