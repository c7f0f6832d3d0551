"""The view of a model that serves: nothing is held twice, and it computes what the library's own module computes."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import peft
import pytest
import tiny_models
import torch
import transformers
from slow_cases import slow_but
from torch import Tensor, nn
from tuning_runs import Serve

from llmos.drivers.engine.memory import live_bytes, tensors_of
from llmos.drivers.engine.models import Resident
from llmos.drivers.engine.surgery.merged import MergedLinear, PackedEmbedding, SingleLinear
from llmos.drivers.tuning.resident import ResidentLinear, copied_bytes, described, training_view
from llmos.syscalls.errors import NotSupported

IDS = torch.tensor([tiny_models.PROMPT])
W8 = {"width": 8, "activations": "model"}
W4 = {"width": 4, "group": 32, "activations": "model"}
TARGETS = {"gpt2": ["c_attn", "c_proj"], "phi3": ["qkv_proj", "o_proj"]}

CASES = [
    (name, dtype, quant)
    for name in ("llama", "qwen2", "qwen3", "gemma2", "gpt2", "phi3", "mixtral")
    for dtype, quant in (("float32", None), ("bfloat16", None), ("float32", W8), ("float32", W4))
]
QUICK = [("llama", "float32", None), ("qwen2", "bfloat16", None), ("llama", "float32", W8)]


def plain(resident: Resident, folder: Path, dtype: str) -> Any:
    """The library's module with the very weights that serve: unpacked where they are packed."""
    module = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()
    for path, part in list(module.named_modules()):
        if isinstance(part, nn.Linear | nn.Embedding):
            held = resident.bundle.module.get_submodule(path)
            if isinstance(held, MergedLinear | SingleLinear | PackedEmbedding):
                part.weight.data = held.weight.detach().to(part.weight.dtype)
    return module.requires_grad_(False)


def adapters(base: Any, name: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        targets = TARGETS.get(name, ["q_proj", "v_proj", "o_proj"])
        made = peft.get_peft_model(base, peft.LoraConfig(r=4, target_modules=targets, fan_in_fan_out=name == "gpt2"))
    torch.manual_seed(1)
    for key, parameter in sorted(made.named_parameters()):
        if "lora_" in key:
            parameter.data = torch.randn(parameter.shape) * 0.1
    return made


def gradients(base: Any, name: str) -> Mapping[str, Tensor]:
    made = adapters(base, name)
    made(input_ids=IDS, labels=IDS, use_cache=False).loss.backward()
    return {key: parameter.grad for key, parameter in made.named_parameters() if parameter.grad is not None}


def apart(one: Tensor, other: Tensor) -> float:
    """By how much the two differ, as a part of the largest element."""
    return float((one - other).abs().max() / other.abs().max().clamp_min(1e-12))


@pytest.mark.parametrize(("name", "dtype", "quant"), slow_but(QUICK, CASES))
def test_logits_and_gradients_are_those_of_plain_peft(serve: Serve, name: str, dtype: str, quant: Any) -> None:
    resident, folder = serve(name, dtype=dtype, quant=quant)
    view, base = training_view(resident.bundle), plain(resident, folder, dtype)
    near = 2e-6 if dtype == "float32" else 3e-2
    with torch.no_grad():
        assert apart(view(input_ids=IDS, use_cache=False).logits, base(input_ids=IDS, use_cache=False).logits) < near
    mine, theirs = gradients(view, name), gradients(base, name)
    assert mine.keys() == theirs.keys() and len(mine) > 4
    worst = {key: apart(mine[key], theirs[key]) for key in mine}
    assert max(worst.values()) < near, worst


@pytest.mark.parametrize("quant", [None, W8], ids=["plain", "w8"])
def test_nothing_is_held_twice(serve: Serve, quant: Any) -> None:
    resident, _ = serve("llama", dtype="float32", quant=quant)
    gc.collect()
    view = training_view(resident.bundle)
    assert copied_bytes(view, resident.bundle) <= 0.01 * resident.bytes
    assert live_bytes(tensors_of(view)) <= live_bytes(tensors_of(resident.bundle.module))
    linear = [part for part in view.modules() if isinstance(part, ResidentLinear)]
    assert linear and not any(list(part.parameters()) for part in linear)


def test_nothing_of_it_requires_a_gradient_and_requests_see_nothing(serve: Serve) -> None:
    resident, _ = serve("llama", dtype="float32")
    parts = dict(resident.bundle.module.named_modules())
    tensors = {name: value.clone() for name, value in resident.bundle.module.state_dict().items()}
    view = training_view(resident.bundle)
    assert not any(parameter.requires_grad for parameter in view.parameters())
    gradients(view, "llama")
    assert dict(resident.bundle.module.named_modules()) == parts, "not one module was put in another's place"
    after = resident.bundle.module.state_dict()
    assert all(torch.equal(after[name], value) and after[name].grad is None for name, value in tensors.items())
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in parts.values())


def test_weights_and_biases_can_be_looked_at(serve: Serve) -> None:
    resident, folder = serve("qwen2", dtype="float32")
    view = training_view(resident.bundle)
    stored = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    for path, part in view.named_modules():
        if isinstance(part, ResidentLinear):
            theirs = stored.get_submodule(path)
            assert torch.equal(part.weight, theirs.weight), path
            assert (part.bias is None) == (theirs.bias is None), path
            if part.bias is not None:
                assert torch.equal(part.bias, theirs.bias), path


def test_what_weights_are_like_is_told_without_unpacking_them(serve: Serve) -> None:
    resident, _ = serve("llama", dtype="bfloat16")
    view = training_view(resident.bundle)
    part = view.get_submodule("model.layers.0.mlp.down_proj")
    with described(view):
        said = part.weight
        assert (said.shape, said.dtype, said.untyped_storage().nbytes()) == (part.weight.shape, torch.bfloat16, 2)
    assert not torch.equal(part.weight, said)


def test_answers_that_are_written_into_are_nobody_elses(serve: Serve) -> None:
    resident, _ = serve("llama", dtype="float32")
    view = training_view(resident.bundle)
    layers = view.model.layers[0].self_attn
    x = torch.randn(1, 3, layers.q_proj.in_features, requires_grad=True)
    layers.q_proj.written = layers.k_proj.written = True
    q, k = layers.q_proj(x), layers.k_proj(x)
    kept = k.detach().clone()
    q += 1.0
    assert torch.equal(k, kept)
    q.sum().backward()
    assert x.grad is not None


def test_what_lies_in_memory_in_another_way_is_refused_by_name(serve: Serve) -> None:
    resident, _ = serve("llama", dtype="float32")
    norm: Any = resident.bundle.module.model.norm
    norm.weight = nn.Parameter(torch.ones(3), requires_grad=False)
    with pytest.raises(NotSupported, match=r"model\.norm\.weight") as raised:
        training_view(resident.bundle)
    assert "another order" in raised.value.why
    del resident.bundle.module.model.norm
    with pytest.raises(NotSupported, match=r"model\.norm"):
        training_view(resident.bundle)
