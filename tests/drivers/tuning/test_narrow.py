"""Bottlenecks: they begin as nothing, alone move, and the engine serves what was trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny_kinds
import tiny_models
import torch
import transformers
from slow_cases import slow_but
from torch import Tensor
from torch.nn import functional
from tuning_runs import Make, Serve

from llmos.drivers.contract import LoadSettings
from llmos.drivers.engine import bottleneck, kinds
from llmos.drivers.engine.engine import Engine
from llmos.drivers.ops.table import OpTable
from llmos.drivers.tuning.job import Running
from llmos.drivers.tuning.methods import adapt
from llmos.drivers.tuning.preparing import prepare
from llmos.drivers.tuning.recipe import Recipe
from llmos.drivers.tuning.resident import training_view
from llmos.drivers.tuning.serving import store
from llmos.syscalls.errors import BadArgument, NotSupported

IDS = torch.tensor([tiny_models.PROMPT])


def logits(module: Any) -> Tensor:
    found: Tensor = module(input_ids=IDS, attention_mask=torch.ones_like(IDS), use_cache=False).logits
    return found.float()


def learn(module: Any, steps: int = 6) -> list[float]:
    moving = [each for each in module.parameters() if each.requires_grad]
    optimizer, losses = torch.optim.AdamW(moving, lr=3e-2), []
    for _ in range(steps):
        loss = functional.cross_entropy(logits(module)[0, :-1], IDS[0, 1:])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def placed(module: Any) -> list[str]:
    return [path for path, part in module.named_modules() if isinstance(part, bottleneck.Followed)]


@pytest.mark.parametrize(
    ("name", "dtype", "rung"),
    slow_but(
        [("llama", "float32", "P"), ("gpt2", "float32", "P")],
        [
            (name, dtype, rung) for name in ("llama", "qwen2", "gemma2", "gpt2", "phi3") for rung in ("P", "G")
            for dtype in ("float32", "bfloat16")
        ],
    ),
)  # fmt: skip
def test_it_begins_as_nothing_alone_moves_and_is_served(
    serve: Serve, ops: OpTable, tmp_path: Path, name: str, dtype: str, rung: str
) -> None:
    resident, _ = serve(name, dtype=dtype)
    bundle = resident.bundle
    before = {key: value.clone() for key, value in bundle.module.state_dict().items()}
    bare = logits(training_view(bundle))
    recipe = Recipe.of({"method": "bottleneck", "rank": 4})
    module = adapt(training_view(bundle), kinds.CAUSAL, recipe, 4)
    assert len(placed(module)) == 2 * bundle.about.config.num_hidden_layers
    assert torch.equal(logits(module), bare)
    moving = {key: value for key, value in module.named_parameters() if value.requires_grad}
    assert {value.dtype for value in moving.values()} == {torch.float32}
    assert moving and all(".bottleneck." in key for key in moving)
    losses = learn(module)
    assert losses[-1] < losses[0]
    after = bundle.module.state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items()), "what serves has not moved"
    store(module.eval(), recipe, bundle, tmp_path)
    base = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=getattr(torch, dtype)).eval()
    with torch.no_grad():
        torch.testing.assert_close(logits(base), bare, rtol=1e-3, atol=1e-4 if dtype == "float32" else 0.1)
        mine = logits(module)
    engine = Engine(ops)
    told = engine.load("t", tiny_models.source_of(tmp_path), LoadSettings(dtype=dtype, rung=rung), tiny_models.silent)
    assert told.rung == rung
    held = engine.base("t").bundle
    assert held.about.bottlenecks == bottleneck.Bottlenecks(4, "gelu", tuple(placed(module)))
    with torch.no_grad():
        theirs = logits(training_view(held))
    assert (mine - theirs).abs().max() / mine.abs().max() < (1e-5 if dtype == "float32" else 5e-2)
    assert (mine - bare).abs().max() / mine.abs().max() > 0.1
    if dtype == "float32":
        said = tiny_models.choice(engine, tiny_models.ask([5, 6, 7], model="t", max_tokens=8)).tokens
        assert said == _greedy(module, [5, 6, 7], 8)


@torch.no_grad()
def _greedy(module: Any, prompt: list[int], count: int) -> list[int]:
    tokens = list(prompt)
    for _ in range(count):
        ids = torch.tensor([tokens])
        tokens.append(int(module(input_ids=ids, use_cache=False).logits[0, -1].argmax()))
    return tokens[len(prompt) :]


@pytest.mark.parametrize("head", ["SequenceClassification", "TokenClassification"])
def test_a_head_of_classes_moves_beside_them(ops: OpTable, tmp_path: Path, head: str) -> None:
    tiny_kinds.text_model(tmp_path / "base", f"BertFor{head}", family="Bert", num_labels=3)
    engine = Engine(ops)
    engine.load("m", tiny_models.source_of(tmp_path / "base"), LoadSettings(dtype="float32"), tiny_models.silent)
    bundle = engine.base("m").bundle
    recipe = Recipe.of({"method": "bottleneck", "objective": "classification", "options": {"activation": "relu"}})
    module = adapt(training_view(bundle), bundle.about.kind, recipe, 4)
    assert {path.rpartition("layer.")[2] for path in placed(module)} == {
        f"{n}.{each}" for n in range(2) for each in ("attention.output.dense", "output.dense")
    }  # fmt: skip
    with torch.no_grad():
        for value in module.parameters():
            value.add_(0.1 * torch.randn_like(value) if value.requires_grad else 0)
    (tmp_path / "out").mkdir()
    store(module.eval(), recipe, bundle, tmp_path / "out", ("a", "b", "c"))
    engine.load("t", tiny_models.source_of(tmp_path / "out"), LoadSettings(dtype="float32"), tiny_models.silent)
    held, ids = engine.base("t").bundle, IDS % 90 + 5
    assert held.about.config.id2label == {0: "a", 1: "b", 2: "c"}
    with torch.no_grad():
        torch.testing.assert_close(training_view(held)(ids).logits, module(ids).logits, rtol=1e-4, atol=1e-5)


def test_a_target_of_ones_own_and_one_that_is_not_there(serve: Serve) -> None:
    bundle = serve("llama")[0].bundle
    recipe = Recipe.of({"method": "bottleneck", "target_modules": ["down_proj"]})
    module = adapt(training_view(bundle), kinds.CAUSAL, recipe, 4)
    assert [path.rpartition(".")[2] for path in placed(module)] == ["down_proj"] * 2
    wrong = Recipe.of({"method": "bottleneck", "target_modules": ["query"]})
    with pytest.raises(BadArgument, match="finds no layers for query") as raised:
        adapt(training_view(bundle), kinds.CAUSAL, wrong, 4)
    assert raised.value.name == "target_modules" and "o_proj" in raised.value.want


@pytest.mark.parametrize("method", ["bottleneck", "last-layers", "bitfit", "full"])
def test_a_job_plans_what_moves_and_stores_it(serve: Serve, make: Make, method: str) -> None:
    if method == "bitfit":
        with pytest.raises(NotSupported):
            make(method=method)
        return
    prepared = make(method=method, rank=4)
    moving = sum(value.nbytes for value in prepared.module.parameters() if value.requires_grad)
    assert prepared.plan.facts["bytes"]["trainable"] == moving > 0
    running = Running(prepared)
    running.work(lambda: None)
    assert running.manifest["kind"] == "model" and running.manifest["how"] == method
    files = {path.name for path in prepared.job.folder.iterdir()}
    assert (bottleneck.SETTINGS in files) == (method == "bottleneck")


def test_what_has_bottlenecks_is_not_tuned_again(make: Make, ops: OpTable) -> None:
    prepared = make(method="bottleneck", rank=4)
    Running(prepared).work(lambda: None)
    engine = Engine(ops)
    engine.load("m", tiny_models.source_of(prepared.job.folder), LoadSettings(), tiny_models.silent)
    with pytest.raises(NotSupported, match="tune the model that it was made from"):
        prepare(prepared.job, engine.base("m"))
