"""Folders of models with random weights, written straight from numbers: no library builds 8 billion of them first.

    python tests/perf/gpu/weights.py FOLDER MODEL...
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
import transformers
from engine.models import byte_level
from gpu.setting import SHAPES, Shape
from safetensors.torch import save_file

POOL = 1 << 25
"""How many random numbers there are; tensors take them one behind the other, again and again."""


def config_of(shape: Shape, context: int) -> Any:
    return transformers.AutoConfig.for_model(
        "qwen3", vocab_size=shape.vocabulary, hidden_size=shape.hidden, intermediate_size=shape.inner,
        num_hidden_layers=shape.layers, num_attention_heads=shape.heads, num_key_value_heads=shape.kv_heads,
        head_dim=shape.width, max_position_embeddings=context, tie_word_embeddings=shape.tied, bos_token_id=None,
        eos_token_id=None, pad_token_id=None, dtype="bfloat16",
    )  # fmt: skip


def folder_of(root: Path, shape: Shape, context: int = 40_960) -> Path:
    """The folder of a model of this shape, written whole or not at all."""
    folder, part = root / shape.name, root / f"{shape.name}.part"
    if folder.exists():
        return folder
    try:
        part.mkdir(parents=True)
    except FileExistsError:
        while not folder.exists():  # another process writes it; whoever started this ends it when its time is over
            time.sleep(0.05)
        return folder
    config = config_of(shape, context)
    config.architectures = ["Qwen3ForCausalLM"]
    config.save_pretrained(part)
    byte_level(shape.vocabulary).save_pretrained(part)
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    tied = set(model._tied_weights_keys or ()) if shape.tied else set()
    tensors = {name: tensor for name, tensor in model.state_dict().items() if name not in tied}
    with (part / "model.safetensors").open("wb") as file:
        write(file, tensors)
    part.rename(folder)
    return folder


def adapter_of(root: Path, shape: Shape, rank: int, number: int) -> Path:
    """The folder of an adapter for all linear layers of a model, as PEFT saves it."""
    folder = root / f"{shape.name}-lora{number}"
    if folder.exists():
        return folder
    part = root / f"{folder.name}.part"
    part.mkdir(parents=True)
    query, key = shape.heads * shape.width, shape.kv_heads * shape.width
    sizes = {
        "self_attn.q_proj": (shape.hidden, query), "self_attn.k_proj": (shape.hidden, key),
        "self_attn.v_proj": (shape.hidden, key), "self_attn.o_proj": (query, shape.hidden),
        "mlp.gate_proj": (shape.hidden, shape.inner), "mlp.up_proj": (shape.hidden, shape.inner),
        "mlp.down_proj": (shape.inner, shape.hidden),
    }  # fmt: skip
    generator = torch.Generator().manual_seed(number)
    tensors = {}
    for layer in range(shape.layers):
        for name, (ins, outs) in sizes.items():
            stem = f"base_model.model.model.layers.{layer}.{name}"
            a = torch.randn(rank, ins, generator=generator) * ins**-0.5
            tensors[f"{stem}.lora_A.weight"] = a.bfloat16()
            tensors[f"{stem}.lora_B.weight"] = (torch.randn(outs, rank, generator=generator) * 0.02).bfloat16()
    save_file(tensors, part / "adapter_model.safetensors")
    about = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": rank, "lora_alpha": rank, "lora_dropout": 0.0,
        "bias": "none", "target_modules": [name.rpartition(".")[2] for name in sizes], "base_model_name_or_path": None,
    }  # fmt: skip
    (part / "adapter_config.json").write_text(json.dumps(about))
    part.rename(folder)
    return folder


def write(file: BinaryIO, tensors: dict[str, torch.Tensor]) -> None:
    """A safetensors file of bfloat16 numbers, each matrix scaled by its inputs so that activations keep their size."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, tensor in tensors.items():
        begin, end = end, end + 2 * tensor.numel()
        header[name] = {"dtype": "BF16", "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little") + text)
    pool = torch.empty(min(POOL, max(t.numel() for t in tensors.values()))).normal_(
        generator=torch.Generator().manual_seed(0)
    )
    scaled: dict[float, torch.Tensor] = {}
    for name, tensor in tensors.items():
        if tensor.ndim == 1:
            file.write(torch.ones(tensor.shape, dtype=torch.bfloat16).view(torch.uint8).numpy().data)
            continue
        scale = 0.02 if "embed" in name or "lm_head" in name else tensor.shape[1] ** -0.5
        if scale not in scaled:
            scaled[scale] = (pool * scale).bfloat16()
        for piece in pieces(scaled[scale], tensor.numel(), start=len(name) * 7919):
            file.write(piece.view(torch.uint8).numpy().data)


def pieces(pool: torch.Tensor, count: int, start: int) -> Iterator[torch.Tensor]:
    """So many numbers of the pool from a place on, from its start again where it ends."""
    at = start % pool.numel()
    while count:
        piece = pool[at : at + count]
        yield piece
        count -= piece.numel()
        at = 0


if __name__ == "__main__":
    for name in sys.argv[2:]:
        folder_of(Path(sys.argv[1]), SHAPES[name])
