"""Adapters merged into their base, against peft's own merge."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from lora_folders import TARGETS, base_of, config_of, save_adapter, tensors_of
from lora_folders import merged as merged_by_peft
from safetensors.torch import save_file
from stored_models import stored
from tiny_models import config_of as shape_of
from tiny_models import random_module, silent, source_of

from llmos.drivers.transform import merge
from llmos.syscalls.errors import BadModel, NotSupported

ADAPTER = {"kind": "merge", "method": "adapter"}


def saved(folder: Path, kind: str) -> Any:
    """A base on disk, and as peft takes it."""
    random_module(shape_of(kind, num_hidden_layers=1)).save_pretrained(folder)
    return base_of(folder)


def merged(tmp_path: Path, *adapters: Path, base: str = "base", **recipe: Any) -> dict[str, torch.Tensor]:
    out = tmp_path / f"out{len([*tmp_path.iterdir()])}"
    out.mkdir()
    sources = [source_of(path) for path in (tmp_path / base, *adapters)]
    merge.run(sources, {**ADAPTER, **recipe}, out, silent)
    return stored(out)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("llama", TARGETS["llama"]), ("gpt2", TARGETS["gpt2"]),
        ("llama", {"r": 8, "use_rslora": True, "rank_pattern": {"q_proj": 2}, "alpha_pattern": {"v_proj": 3}}),
    ],
)  # fmt: skip
def test_the_result_is_what_peft_merges(tmp_path: Path, kind: str, options: dict[str, Any]) -> None:
    base = saved(tmp_path / "base", kind)
    adapter = save_adapter(base, tmp_path / "adapter", **options)
    wanted = merged_by_peft(base, adapter).state_dict()
    found = merged(tmp_path, adapter)
    changed = [name for name, value in stored(tmp_path / "base").items() if not torch.equal(value, found[name])]
    assert len(changed) == len(tensors_of(adapter)) // 2
    for name, value in found.items():
        known = name if name in wanted else f"transformer.{name}"
        torch.testing.assert_close(value, wanted[known], rtol=1e-5, atol=1e-5)


def test_two_adapters_are_added_with_their_weights(tmp_path: Path) -> None:
    base = saved(tmp_path / "base", "llama")
    adapters = [save_adapter(base, tmp_path / f"a{seed}", seed) for seed in range(2)]
    start, both = stored(tmp_path / "base"), merged(tmp_path, *adapters, weights=[1.0, -2.0])
    alone = [merged(tmp_path, adapter) for adapter in adapters]
    for name, value in both.items():
        wanted = start[name] + (alone[0][name] - start[name]) - 2 * (alone[1][name] - start[name])
        torch.testing.assert_close(value, wanted, rtol=1e-4, atol=1e-4)


def test_an_adapter_of_another_base_is_refused_with_its_layer(tmp_path: Path) -> None:
    base = saved(tmp_path / "base", "llama")
    adapter = save_adapter(base, tmp_path / "adapter")
    random_module(shape_of("llama", num_hidden_layers=1, hidden_size=32)).save_pretrained(tmp_path / "small")
    with pytest.raises(BadModel, match=r"q_proj of the shape \[64, 64\], and /models/small has .*q_proj.weight of"):
        merged(tmp_path, adapter, base="small")
    tensors = {name.replace("layers.0", "layers.7"): value for name, value in tensors_of(adapter).items()}
    save_file(tensors, adapter / "adapter_model.safetensors")
    with pytest.raises(BadModel, match=r"layers.7.*has no such layer; merge it into the base"):
        merged(tmp_path, adapter)


def test_an_adapter_of_another_kind_is_refused(tmp_path: Path) -> None:
    base = saved(tmp_path / "base", "llama")
    adapter = save_adapter(base, tmp_path / "adapter")
    (adapter / "adapter_config.json").write_text(json.dumps({**config_of(adapter), "use_qalora": True}))
    with pytest.raises(NotSupported, match="QALoRA"):
        merged(tmp_path, adapter)
