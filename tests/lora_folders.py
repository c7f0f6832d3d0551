"""Random adapters in PEFT layout whose effect can be seen, and what peft itself makes of them."""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from tiny_models import PROMPT, greedy

from llmos.drivers.engine.lora.weights import LoraWeights, interpret

Make = Callable[..., Path]

TARGETS: Mapping[str, Any] = {
    "llama": {"target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]},
    "gpt2": {"target_modules": ["c_attn", "c_proj", "c_fc"], "fan_in_fan_out": True},
    "mixtral": {"target_modules": ["q_proj", "v_proj", "o_proj"]},
    "gptj": {"target_modules": ["q_proj", "v_proj", "out_proj", "fc_in"]},
    "gemma2": {"target_modules": ["q_proj", "o_proj", "up_proj", "down_proj"]},
    "qwen3_next": {"target_modules": ["q_proj", "v_proj", "o_proj", "in_proj_qkvz", "in_proj_ba", "out_proj"]},
}
"""By architecture: the layers of an adapter for it."""


def base_of(folder: Path) -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(folder).eval()


def save_adapter(base: Any, folder: Path, seed: int = 0, spread: float = 0.15, **options: Any) -> Path:
    """Save a random adapter; by default of rank 4 on queries and values, with a scale of 4."""
    torch.manual_seed(seed)
    settings = {"r": 4, "lora_alpha": 16, "target_modules": ["q_proj", "v_proj"], **options}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wrapped = get_peft_model(copy.deepcopy(base), LoraConfig(**settings))
        with torch.no_grad():
            for path, parameter in wrapped.named_parameters():
                if "lora_" in path:
                    parameter.normal_(0, spread)
        wrapped.save_pretrained(str(folder), save_embedding_layers=False)
    return folder


def live(base: Any, folder: Path) -> Any:
    """The base with the adapter beside its weights, as peft computes it."""
    return PeftModel.from_pretrained(copy.deepcopy(base), str(folder)).eval()


def merged(base: Any, folder: Path) -> Any:
    """The base with the adapter in its weights, as peft merges it."""
    return live(base, folder).merge_and_unload().eval()


def expected(base: Any, folder: Path | None, prompt: Any = PROMPT, count: int = 12) -> list[int]:
    """The merged model's greedy answer; the base's own without an adapter."""
    return greedy(base if folder is None else merged(base, folder), prompt, count)[0]


def tensors_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "adapter_model.safetensors")


def config_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "adapter_config.json").read_text())
    return found


def weights_of(folder: Path) -> LoraWeights:
    return interpret(tensors_of(folder), config_of(folder), folder.name, "adapter_model.safetensors")


@contextmanager
def without_weights(folder: Path) -> Iterator[None]:
    """Its tensors are missing meanwhile."""
    weights = folder / "adapter_model.safetensors"
    kept = weights.read_bytes()
    weights.unlink()
    yield
    weights.write_bytes(kept)
