"""What adapters that are more than low-rank sums make of their base, against peft's own merge."""

from __future__ import annotations

import copy
import json
import warnings
from pathlib import Path
from typing import Any

import peft
import pytest
import tiny_kinds
import torch
import transformers
from lora_folders import TARGETS, config_of, save_adapter, tensors_of
from safetensors.torch import save_file
from stored_models import stored
from tiny_models import config_of as shape_of
from tiny_models import random_module, silent, source_of
from torch import nn

from llmos.drivers.transform import merge
from llmos.drivers.transform.changes import LowRank, changes_of
from llmos.syscalls.errors import BadModel, NotSupported


def base_of(folder: Path, kind: str) -> Any:
    """A base on disk, whose biases are not all 0, and as peft takes it."""
    if kind == "bert":
        tiny_kinds.text_model(folder, "BertForSequenceClassification", num_labels=3)
        return transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    module = random_module(shape_of(kind, num_hidden_layers=1))
    for name, parameter in module.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(parameter)
    module.save_pretrained(folder)
    return transformers.AutoModelForCausalLM.from_pretrained(folder).eval()


def save(base: Any, folder: Path, settings: Any) -> Path:
    """A random adapter."""
    torch.manual_seed(3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wrapped = peft.get_peft_model(copy.deepcopy(base), settings)
        with torch.no_grad():
            for parameter in wrapped.parameters():
                if parameter.requires_grad:
                    parameter.add_(torch.randn(parameter.shape) * 0.2)
        wrapped.save_pretrained(str(folder), save_embedding_layers=False)
    return folder


def merged(base: Path, adapter: Path, out: Path, **recipe: Any) -> dict[str, torch.Tensor]:
    out.mkdir()
    merge.run([source_of(base), source_of(adapter)], {"kind": "merge", "method": "adapter", **recipe}, out, silent)
    return stored(out)


CLASSES = peft.TaskType.SEQ_CLS
CASES = {
    "dora": ("llama", peft.LoraConfig(r=4, use_dora=True, **TARGETS["llama"])),
    "dora, transposed": ("gpt2", peft.LoraConfig(r=4, use_dora=True, **TARGETS["gpt2"])),
    "ia3": ("llama", peft.IA3Config(target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"])),
    "ia3 with biases": ("qwen2", peft.IA3Config(target_modules=["k_proj", "v_proj"], feedforward_modules=[])),
    "ia3, transposed": (
        "gpt2",
        peft.IA3Config(
            target_modules=["c_attn", "mlp.c_proj"], feedforward_modules=["mlp.c_proj"], fan_in_fan_out=True
        ),
    ),
    "a head": ("bert", peft.LoraConfig(r=4, target_modules=["query"], task_type=CLASSES)),
    "a head with ia3": ("bert", peft.IA3Config(target_modules=["key"], feedforward_modules=[], task_type=CLASSES)),
}


@pytest.mark.parametrize("case", CASES)
def test_the_result_is_what_peft_merges(tmp_path: Path, case: str) -> None:
    kind, settings = CASES[case]
    base = base_of(tmp_path / "base", kind)
    adapter = save(base, tmp_path / "adapter", settings)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wanted = peft.PeftModel.from_pretrained(copy.deepcopy(base), str(adapter)).merge_and_unload().state_dict()
    before, found = stored(tmp_path / "base"), merged(tmp_path / "base", adapter, tmp_path / "out")
    changed = [name for name in before if not torch.equal(before[name], found[name])]
    assert changed
    for name, value in found.items():
        known = next(each for each in (name, f"transformer.{name}") if each in wanted)
        torch.testing.assert_close(value, wanted[known], rtol=1e-5, atol=1e-5, msg=name)
    assert all(not torch.equal(wanted[n if n in wanted else f"transformer.{n}"], before[n]) for n in changed)


def test_a_part_of_what_can_only_be_had_whole_is_refused(tmp_path: Path) -> None:
    base = base_of(tmp_path / "base", "llama")
    adapter = save(base, tmp_path / "adapter", CASES["dora"][1])
    with pytest.raises(NotSupported, match=r"no weight, not 0\.5"):
        merged(tmp_path / "base", adapter, tmp_path / "out", weights=[0.5])


def test_matrices_and_magnitudes_belong_together(tmp_path: Path) -> None:
    base = base_of(tmp_path / "base", "llama")
    adapter = save_adapter(base, tmp_path / "plain")
    (adapter / "adapter_config.json").write_text(json.dumps({**config_of(adapter), "use_dora": True}))
    with pytest.raises(BadModel, match="no magnitude"):
        merged(tmp_path / "base", adapter, tmp_path / "out")
    tensors = tensors_of(adapter) | {"base_model.model.model.norm.lora_magnitude_vector": torch.ones(4)}
    save_file(tensors, adapter / "adapter_model.safetensors")
    with pytest.raises(BadModel, match=r"norm\.lora_magnitude_vector has no matrices"):
        merged(tmp_path / "base", adapter, tmp_path / "again")


def test_scales_of_another_shape_are_refused(tmp_path: Path) -> None:
    base = base_of(tmp_path / "base", "llama")
    adapter = save(base, tmp_path / "adapter", CASES["ia3"][1])
    tensors = {name: value[:2] if value.shape[1] == 1 else value for name, value in tensors_of(adapter).items()}
    save_file({name: value.contiguous() for name, value in tensors.items()}, adapter / "adapter_model.safetensors")
    with pytest.raises(BadModel, match="k_proj"):
        merged(tmp_path / "base", adapter, tmp_path / "out")
    save_file({"base_model.model.model.norm.other": torch.ones(3)}, adapter / "adapter_model.safetensors")
    with pytest.raises(BadModel, match="does not scale"):
        merged(tmp_path / "base", adapter, tmp_path / "again")


def test_plain_lora_is_low_rank(tmp_path: Path) -> None:
    base = base_of(tmp_path / "base", "llama")
    adapter = save_adapter(base, tmp_path / "adapter")
    changes = changes_of(tensors_of(adapter), config_of(adapter), "a")
    assert len(changes) == 2 and all(isinstance(change, LowRank) for change in changes.values())
