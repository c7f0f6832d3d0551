"""Train the model that quality is measured on: `make quality-model`, half an hour at most.

A model of Llama's architecture with 12 million parameters on the sources of Python's standard library, kept in
build/quality and never shipped. The rate follows a cosine over the steps, or over the minutes where those end first. A
run that was interrupted goes on from its last checkpoint.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

import torch
from text import held_out, sources
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

END = "<|end|>"
VOCABULARY, HIDDEN, INNER, LAYERS, HEADS, KV_HEADS, CONTEXT = 4096, 384, 1152, 6, 6, 2, 512
ROWS, WINDOW = 16, 256
RATE, MATRIX_RATE, WARMUP, DECAY = 4e-3, 8e-3, 40, 0.05
SAVED_EVERY = 25


def tokenizer_of(texts: list[str]) -> PreTrainedTokenizerFast:
    """Byte-level BPE."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=VOCABULARY, special_tokens=[END], show_progress=False, initial_alphabet=alphabet
        ),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=END, eos_token=END, model_max_length=CONTEXT
    )


def new_model() -> LlamaForCausalLM:
    torch.manual_seed(7)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY, hidden_size=HIDDEN, intermediate_size=INNER, num_hidden_layers=LAYERS,
            num_attention_heads=HEADS, num_key_value_heads=KV_HEADS, head_dim=HIDDEN // HEADS,
            max_position_embeddings=CONTEXT, tie_word_embeddings=True, initializer_range=0.03, rms_norm_eps=1e-5,
            bos_token_id=0, eos_token_id=0, attn_implementation="sdpa",
        )
    )  # fmt: skip


def optimizers_of(model: LlamaForCausalLM) -> list[tuple[torch.optim.Optimizer, float]]:
    """Muon for the matrices of the layers, AdamW for the embedding and the norms; each with its full rate."""
    matrices = [part for part in model.model.layers.parameters() if part.dim() == 2]
    others = [part for part in model.parameters() if part.dim() == 1] + [model.model.embed_tokens.weight]
    muon = torch.optim.Muon(
        matrices, lr=MATRIX_RATE, weight_decay=DECAY, momentum=0.95, adjust_lr_fn="match_rms_adamw"
    )
    adam = torch.optim.AdamW(others, lr=RATE, betas=(0.9, 0.98), eps=1e-9, weight_decay=0.0, fused=True)
    return [(muon, MATRIX_RATE), (adam, RATE)]


def windows(ids: torch.Tensor, seed: int) -> torch.Tensor:
    """The order of one pass over all windows of the text."""
    return torch.randperm((ids.numel() - 1) // WINDOW, generator=torch.Generator().manual_seed(seed))


def batch(ids: torch.Tensor, step: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs and targets [ROWS, WINDOW] of a step."""
    each = ((ids.numel() - 1) // WINDOW) // ROWS
    order = windows(ids, step // each)[step % each * ROWS :][:ROWS]
    starts = order[:, None] * WINDOW + torch.arange(WINDOW)
    return ids[starts], ids[starts + 1]


def train(folder: Path, steps: int, minutes: float) -> None:
    texts = sources(held_out=False)
    tokenizer = tokenizer_of(texts)
    ids = torch.tensor([token for text in tokenizer(texts, verbose=False).input_ids for token in [*text, 0]])
    model = new_model()
    optimizers = optimizers_of(model)
    step, elapsed, losses = _resume(folder, model, optimizers)
    print(f"{model.num_parameters():,} parameters, {ids.numel():,} tokens, from step {step}", flush=True)
    before = time.monotonic()
    while (progress := max(step / steps, elapsed / 60 / minutes)) < 1:
        scale = min(1, (step + 1) / WARMUP) * (0.02 + 0.49 * (1 + math.cos(math.pi * progress)))
        losses.append(_step(model, optimizers, *batch(ids, step), scale))
        step += 1
        now = time.monotonic()
        elapsed, before = elapsed + now - before, now
        if step % SAVED_EVERY == 0:
            state = {"model": model.state_dict(), "optimizers": [part.state_dict() for part, _ in optimizers]}
            torch.save({**state, "step": step, "elapsed": elapsed, "losses": losses}, folder / "checkpoint.part")
            (folder / "checkpoint.part").replace(folder / "checkpoint.pt")
            recent = sum(losses[-SAVED_EVERY:]) / SAVED_EVERY
            print(f"step {step}  loss {recent:.3f}  {elapsed / step:.2f} s/step", flush=True)
    model.to(torch.bfloat16).save_pretrained(folder / "part")
    tokenizer.save_pretrained(folder / "part")
    log = {"steps": step, "minutes": round(elapsed / 60, 1), "loss": losses[-1], "tokens": step * ROWS * WINDOW}
    (folder / "part" / "training_log.json").write_text(json.dumps(log), encoding="utf-8")
    (folder / "held_out.txt").write_text(held_out(), encoding="utf-8")
    (folder / "part").replace(folder / "model")
    (folder / "checkpoint.pt").unlink(missing_ok=True)


def _step(
    model: LlamaForCausalLM, optimizers: list[tuple[torch.optim.Optimizer, float]], ids: torch.Tensor,
    targets: torch.Tensor, scale: float,
) -> float:  # fmt: skip
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(input_ids=ids, use_cache=False).logits
    loss = functional.cross_entropy(logits.float().flatten(0, 1), targets.flatten())
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for optimizer, rate in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate * scale
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return round(float(loss.detach()), 4)


def _resume(folder: Path, model: LlamaForCausalLM, optimizers: Any) -> tuple[int, float, list[float]]:
    if not (folder / "checkpoint.pt").exists():
        return 0, 0.0, []
    state = torch.load(folder / "checkpoint.pt", weights_only=True)
    model.load_state_dict(state["model"])
    for (optimizer, _), kept in zip(optimizers, state["optimizers"], strict=True):
        optimizer.load_state_dict(kept)
    return state["step"], state["elapsed"], state["losses"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("build/quality"))
    parser.add_argument("--steps", type=int, default=700)
    parser.add_argument("--minutes", type=float, default=28, help="the most it may take")
    options = parser.parse_args()
    if (options.out / "model").exists():
        print(f"{options.out / 'model'} is there")
        return
    options.out.mkdir(parents=True, exist_ok=True)
    train(options.out, options.steps, options.minutes)


if __name__ == "__main__":
    main()
