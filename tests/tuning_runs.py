"""Tiny models to train, and batches without a tokenizer."""

from __future__ import annotations

import copy
import gc
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import peft
import tiny_models
import torch
import transformers
from torch import Tensor, nn

from llmos.drivers.contract import TuneJob
from llmos.drivers.engine.models import Resident
from llmos.drivers.tuning.data.batches import Batch, Batches
from llmos.drivers.tuning.data.example import Example
from llmos.drivers.tuning.objectives.protocol import Objective, inputs
from llmos.drivers.tuning.preparing import Prepared, prepare
from llmos.drivers.tuning.recipe import Recipe

VOCABULARY = 24

Serve = Callable[..., tuple[Resident, Path]]
"""The fixture `serve`: a loaded model by its architecture and settings, and its folder."""

JOB: Mapping[str, Any] = {"method": "lora", "rank": 2, "batch_size": 2, "max_steps": 2, "max_length": 16}
Make = Callable[..., Prepared]
"""The fixture `make`: a prepared job, by its recipe."""


def llama(dropout: float = 0.0, layers: int = 2, size: int = 16, vocabulary: int = VOCABULARY) -> Any:
    """A causal model with random weights."""
    config = transformers.LlamaConfig(
        vocab_size=vocabulary, hidden_size=size, intermediate_size=2 * size, num_hidden_layers=layers,
        num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=128, attention_dropout=dropout,
        initializer_range=0.2, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    torch.manual_seed(1)
    return transformers.LlamaForCausalLM(config)


def lora(model: Any, dropout: float = 0.0, **more: Any) -> nn.Module:
    """The model with LoRA on queries and values, neither part of it at 0."""
    settings = peft.LoraConfig(r=4, lora_alpha=8, lora_dropout=dropout, target_modules=["q_proj", "v_proj"], **more)
    torch.manual_seed(2)
    made: nn.Module = peft.get_peft_model(model, settings)
    return made


def sentences(count: int, seed: int = 0, longest: int = 12) -> list[Example]:
    """Numbers that count up from a random one: what comes next can be known."""
    generator = torch.Generator().manual_seed(seed)
    made = []
    for _ in range(count):
        first, length = torch.randint(3, VOCABULARY, (2,), generator=generator).tolist()
        tokens = [3 + (first + n) % (VOCABULARY - 3) for n in range(4 + length % (longest - 3))]
        made.append(Example(tokens, tokens))
    return made


def recipe(**fields: Any) -> Recipe:
    fields = {"batch_size": 2, "learning_rate": 1e-2, "max_length": 24, **fields}
    return Recipe.of({"method": "lora", **fields})


def batches(made: Recipe, examples: Sequence[Example] | None = None) -> Batches:
    return Batches(examples or sentences(16), made)


def bert(head: str, size: int = 16, **more: Any) -> Any:
    """A model that reads both ways, of a class of the library such as `ForMaskedLM`, with random weights."""
    config = transformers.BertConfig(
        vocab_size=VOCABULARY, hidden_size=size, intermediate_size=2 * size, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=64, hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0, initializer_range=0.3, pad_token_id=0, **more,
    )  # fmt: skip
    torch.manual_seed(1)
    return getattr(transformers, f"Bert{head}")(config)


def gradients(module: nn.Module) -> dict[str, Tensor]:
    """What backward passes have left, by parameter."""
    return {name: value.grad for name, value in module.named_parameters() if value.grad is not None}


def learnt(objective: Objective, module: nn.Module, batch: Batch) -> tuple[float, dict[str, Tensor]]:
    """The mean loss of a batch, and its gradients."""
    mean = objective.loss(module, batch).total / objective.weight(batch)
    mean.backward()  # type: ignore[no-untyped-call]
    return mean.item(), gradients(module)


def same_as_the_librarys(objective: Objective, module: Any, batch: Batch, **labels: Tensor) -> None:
    """Whether an objective has the loss and the gradients of a model's own loss for these labels."""
    other = copy.deepcopy(module)
    loss, made = learnt(objective, module, batch)
    wanted = other(**inputs(batch), **labels).loss
    wanted.backward()
    assert abs(loss - wanted.item()) <= 1e-5 * abs(wanted.item())
    torch.testing.assert_close(made, gradients(other), rtol=1e-4, atol=1e-6)


def allocated(work: Callable[[], object]) -> int:
    """The most bytes that torch's allocator held at once beyond those before, as its own profiler tells."""
    gc.collect()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        work()
    assert profile.profiler is not None and profile.profiler.kineto_results is not None
    events = [each for each in profile.profiler.kineto_results.events() if each.name() == "[memory]"]
    now = most = 0
    for each in sorted(events, key=lambda event: event.start_ns()):
        now += each.nbytes()
        most = max(most, now)
    return most


def maker(serve: Serve, tmp_path: Path, name: str = "llama", **settings: Any) -> Make:
    """Prepares jobs of eight rows, as text or as `row` says, and of other `files` by name, on a model that serves."""
    resident, _ = serve(name, **{"dtype": "float32", **settings})

    def prepared(
        text: str = "a b c d", version: str = "v1", row: Any = None,
        files: Mapping[str, Sequence[Mapping[str, Any]]] = {}, **recipe: Any,
    ) -> Prepared:  # fmt: skip
        folder = tmp_path / "data"
        folder.mkdir(exist_ok=True)
        rows = [{**row, "prompt": str(n)} if row else {"text": f"{n} {text}"} for n in range(8)]
        for file, those in {"rows.jsonl": rows, **files}.items():
            (folder / file).write_text("".join(json.dumps(each) + "\n" for each in those))
        source = tiny_models.source_of(folder)
        job = TuneJob("t1", "m", {**JOB, **recipe}, source, tmp_path / "out", tmp_path / "keep", version=version)
        return prepare(job, resident)

    return prepared
