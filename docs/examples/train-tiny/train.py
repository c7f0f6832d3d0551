"""Train the bundled model on two CPU cores: `python train.py --out FOLDER [--minutes 60]`.

Each step is one batch of requests (loss on the command only) and one batch of docstrings (loss on every token). The
learning rate follows a cosine over the steps, or over the time budget where that ends first. A run that was
interrupted goes on from its last checkpoint.
"""

import argparse
import json
import math
import random
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from answer import answers
from corpus import Corpus, docstrings
from tokenizer import END, prompt_of, train_tokenizer
from torch.nn import functional
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

CHECK = (("phrasings", False), ("templates", False), ("phrasings", True), ("templates", True))
POOL = 32  # batches of requests drawn at once and sorted by length, so that hardly any padding is computed


@dataclass
class Settings:
    """Everything that decides the result, kept in the training log."""

    hidden: int = 256
    intermediate: int = 640
    layers: int = 5
    heads: int = 4
    kv_heads: int = 2
    context: int = 512
    steps: int = 9000
    minutes: float = math.inf
    requests: int = 64
    documents: int = 3
    window: int = 256
    rate: float = 3e-3
    matrix_rate: float = 5e-3
    warmup: int = 100
    decay: float = 0.05
    seed: int = 7
    bf16: bool = True


@dataclass
class Run:
    """What a checkpoint holds beside weights and optimizer state."""

    step: int = 0
    elapsed: float = 0.0
    losses: list[list[float]] = field(default_factory=list)  # step, loss on commands, loss on docstrings
    checks: list[dict[str, float]] = field(default_factory=list)


class Batches:
    """Endless batches of requests and of docstrings."""

    def __init__(self, settings: Settings, tokenizer: PreTrainedTokenizerFast, seed: int) -> None:
        self.settings, self.tokenizer = settings, tokenizer
        docs = docstrings(held_out=False)
        self.rng = random.Random(seed)
        self.corpus = Corpus(docs, seed)
        self.end = tokenizer.eos_token_id
        self.docs: list[list[int]] = tokenizer(docs).input_ids
        self.stream: list[int] = []
        self.pool: list[list[tuple[list[int], list[int]]]] = []

    def requests(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Token ids and targets (-100 where no loss is taken), both (requests, length)."""
        if not self.pool:
            count = POOL * self.settings.requests
            examples = [self.corpus.example() for _ in range(count)]
            prompts = self.tokenizer([prompt_of(example.request) for example in examples]).input_ids
            commands = self.tokenizer([example.command + END for example in examples]).input_ids
            pairs = sorted(zip(prompts, commands, strict=True), key=lambda pair: len(pair[0]) + len(pair[1]))
            size = self.settings.requests
            self.pool = [pairs[start : start + size] for start in range(0, count, size)]
            self.rng.shuffle(self.pool)
        batch = self.pool.pop()
        width = max(len(prompt) + len(command) for prompt, command in batch) - 1
        ids = torch.zeros(len(batch), width, dtype=torch.long)
        targets = torch.full((len(batch), width), -100)
        for row, (prompt, command) in enumerate(batch):
            whole = torch.tensor(prompt + command)
            ids[row, : len(whole) - 1] = whole[:-1]
            targets[row, len(prompt) - 1 : len(whole) - 1] = whole[len(prompt) :]
        return ids, targets

    def documents(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Token ids and targets of consecutive windows of shuffled docstrings, both (documents, window)."""
        rows, width = self.settings.documents, self.settings.window
        need = rows * width + 1
        while len(self.stream) < need:
            self.stream += [*self.rng.choice(self.docs), self.end]
        ids = torch.tensor(self.stream[:need])
        self.stream = self.stream[need - 1 :]
        return ids[:-1].view(rows, width), ids[1:].view(rows, width)


def new_model(settings: Settings, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """The model with fresh weights."""
    torch.manual_seed(settings.seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=settings.hidden, intermediate_size=settings.intermediate,
            num_hidden_layers=settings.layers, num_attention_heads=settings.heads, initializer_range=0.03,
            num_key_value_heads=settings.kv_heads, head_dim=settings.hidden // settings.heads,
            max_position_embeddings=settings.context, tie_word_embeddings=True, rms_norm_eps=1e-5,
            bos_token_id=tokenizer.eos_token_id, eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id, attn_implementation="sdpa",
        )
    )


def loss_of(model: LlamaForCausalLM, ids: torch.Tensor, targets: torch.Tensor, bf16: bool) -> torch.Tensor:
    """Mean cross-entropy; the output layer runs only where a loss is taken."""
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state
        kept = targets != -100
        logits = model.lm_head(hidden[kept])
    return functional.cross_entropy(logits.float(), targets[kept])


class Optimizer:
    """Muon for the matrices of the layers, AdamW for embedding and norms.

    Muon orthogonalises each update (Jordan et al., 2024); scaled to the size of AdamW's updates (Liu et al., 2025).
    """

    def __init__(self, model: LlamaForCausalLM, settings: Settings) -> None:
        layers = [parameter for parameter in model.model.layers.parameters() if parameter.dim() == 2]
        norms = [parameter for parameter in model.parameters() if parameter.dim() == 1]
        embedding = [model.model.embed_tokens.weight]
        muon = torch.optim.Muon(
            layers, lr=settings.matrix_rate, weight_decay=settings.decay, momentum=0.95, adjust_lr_fn="match_rms_adamw"
        )
        adam = torch.optim.AdamW(
            [{"params": embedding, "weight_decay": settings.decay}, {"params": norms, "weight_decay": 0.0}],
            lr=settings.rate, betas=(0.9, 0.98), eps=1e-9, fused=True,
        )
        self.parts: list[tuple[torch.optim.Optimizer, float]] = [(muon, settings.matrix_rate), (adam, settings.rate)]

    def step(self, scale: float) -> None:
        """One update at this fraction of the full learning rates; clears the gradients."""
        for part, rate in self.parts:
            for group in part.param_groups:
                group["lr"] = rate * scale
            part.step()
            part.zero_grad(set_to_none=True)

    def state_dict(self) -> list[dict[str, Any]]:
        """What a checkpoint keeps."""
        return [part.state_dict() for part, _ in self.parts]

    def load_state_dict(self, states: list[dict[str, Any]]) -> None:
        """Go on from a checkpoint."""
        for (part, _), state in zip(self.parts, states, strict=True):
            part.load_state_dict(state)


def progress_of(run: Run, settings: Settings) -> float:
    """How much of the run is done, 0 to 1."""
    return min(1.0, max(run.step / settings.steps, run.elapsed / 60 / settings.minutes))


def train(settings: Settings, out: Path, every: int) -> None:
    """Train until the steps or the time are used up; leaves the fp32 model and the log in the folder."""
    tokenizer = _tokenizer(out)
    model = new_model(settings, tokenizer)
    optimizer = Optimizer(model, settings)
    run = _resume(out, model, optimizer)
    batches = Batches(settings, tokenizer, settings.seed + 1000 * run.step)
    print(f"{model.num_parameters():,} parameters, from step {run.step}", flush=True)
    model.train()
    before = time.monotonic()
    while (progress := progress_of(run, settings)) < 1:
        scale = min(1, (run.step + 1) / settings.warmup) * (0.02 + 0.49 * (1 + math.cos(math.pi * progress)))
        losses = []
        for ids, targets in (batches.requests(), batches.documents()):
            loss = loss_of(model, ids, targets, settings.bf16)
            (loss * 0.5).backward()
            losses.append(float(loss.detach()))
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step(scale)
        run.step += 1
        run.losses.append([run.step, round(losses[0], 4), round(losses[1], 4)])
        now = time.monotonic()
        run.elapsed, before = run.elapsed + now - before, now
        if run.step % 50 == 0:
            _report(run, settings)
        if run.step % every == 0:
            run.checks.append(check(model, tokenizer, run.step))
            print(json.dumps(run.checks[-1]), flush=True)
            _save(out, settings, run, model, optimizer)
    run.checks.append(check(model, tokenizer, run.step))
    _save(out, settings, run, model, optimizer)
    model.save_pretrained(out / "fp32")
    tokenizer.save_pretrained(out / "fp32", save_jinja_files=False)


def check(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, step: int) -> dict[str, float]:
    """Exact match on a few held-out requests of each sort."""
    model.eval()
    docs = docstrings(held_out=False)
    found: dict[str, float] = {"step": step}
    for wording, held_out_names in CHECK:
        corpus = Corpus(docs, 99, wording, held_out_names)
        examples = [corpus.example() for _ in range(128)]
        given = answers(model, tokenizer, [example.request for example in examples])
        right = sum(answer.text == example.command for answer, example in zip(given, examples, strict=True))
        found[f"{wording}{'_and_names' if held_out_names else ''}"] = round(right / len(examples), 3)
    model.train()
    return found


def _tokenizer(out: Path) -> PreTrainedTokenizerFast:
    folder = out / "tokenizer"
    if not folder.exists():
        return train_tokenizer(docstrings(held_out=False), folder)
    tokenizer: PreTrainedTokenizerFast = AutoTokenizer.from_pretrained(folder)
    return tokenizer


def _report(run: Run, settings: Settings) -> None:
    recent = run.losses[-50:]
    commands, documents = (sum(row[column] for row in recent) / len(recent) for column in (1, 2))
    left = run.elapsed * (1 / progress_of(run, settings) - 1)
    print(
        f"step {run.step}  commands {commands:.3f}  docstrings {documents:.3f}  "
        f"{run.elapsed / run.step:.2f} s/step  {left / 60:.0f} min left", flush=True,
    )


def _save(out: Path, settings: Settings, run: Run, model: LlamaForCausalLM, optimizer: Optimizer) -> None:
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "run": vars(run)}
    torch.save(state, out / "checkpoint.part")
    (out / "checkpoint.part").replace(out / "checkpoint.pt")
    (out / "training_log.json").write_text(json.dumps({"settings": _plain(settings), **vars(run)}), encoding="utf-8")


def _plain(settings: Settings) -> dict[str, Any]:
    return {name: None if value == math.inf else value for name, value in vars(settings).items()}


def _resume(out: Path, model: LlamaForCausalLM, optimizer: Optimizer) -> Run:
    if not (out / "checkpoint.pt").exists():
        return Run()
    state = torch.load(out / "checkpoint.pt", weights_only=True)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    return Run(**state["run"])


def main() -> None:
    """Read the options and train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--check-every", type=int, default=500)
    for name, value in vars(Settings()).items():
        kind = {"true": True, "false": False}.__getitem__ if isinstance(value, bool) else type(value)
        parser.add_argument(f"--{name}", type=kind, default=value)
    options = vars(parser.parse_args())
    out, every = options.pop("out"), options.pop("check_every")
    out.mkdir(parents=True, exist_ok=True)
    train(Settings(**options), out, every)


if __name__ == "__main__":
    main()
