"""What each method stores is loaded and served as it is, and says what the module that was trained says."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import peft
import pytest
import tiny_kinds
import tiny_models
import torch
import transformers
from slow_cases import slow_but
from torch import Tensor, nn
from torch.nn import functional
from tuning_runs import Make, Serve

from llmos.drivers.contract import LoadSettings
from llmos.drivers.engine import kinds
from llmos.drivers.engine.engine import Engine
from llmos.drivers.engine.loader import Bundle
from llmos.drivers.ops.table import OpTable
from llmos.drivers.tuning.job import Running
from llmos.drivers.tuning.methods import adapt, export
from llmos.drivers.tuning.recipe import Recipe
from llmos.drivers.tuning.words import PROMPTS
from llmos.drivers.tuning.resident import training_view
from llmos.drivers.tuning.serving import ADAPTER, MODEL, check, form_of, store
from llmos.syscalls.errors import BadArgument, NotSupported

IDS = torch.tensor([tiny_models.PROMPT])
HEAD: dict[str, Any] = {"method": "lora", "options": {"modules_to_save": ["lm_head"]}}
MERGED: list[dict[str, Any]] = [{"method": "dora"}, {"method": "ia3"}, HEAD]


def learn(module: Any, steps: int = 4) -> None:
    moving = [each for each in module.parameters() if each.requires_grad]
    optimizer = torch.optim.AdamW(moving, lr=3e-2)
    for _ in range(steps):
        functional.cross_entropy(logits(module)[0, :-1], IDS[0, 1:]).backward()
        optimizer.step()
        optimizer.zero_grad()


def logits(module: Any) -> Tensor:
    found: Tensor = module(input_ids=IDS, attention_mask=torch.ones_like(IDS), use_cache=False).logits
    return found[:, -IDS.shape[1] :].float()


def tuned(bundle: Bundle, **fields: Any) -> tuple[Any, Recipe]:
    recipe = Recipe.of({"rank": 4, **fields})
    module = adapt(training_view(bundle), bundle.about.kind, recipe, 4)
    check(module, recipe, bundle.about.kind)
    return module, recipe


@pytest.mark.parametrize(
    ("name", "dtype", "fields"),
    slow_but(
        [("llama", "float32", fields) for fields in MERGED],
        [(name, dtype, each) for name in ("llama", "gpt2") for dtype in ("float32", "bfloat16") for each in MERGED],
    ),
)
def test_what_is_no_plain_sum_is_stored_as_a_model(
    serve: Serve, ops: OpTable, tmp_path: Path, name: str, dtype: str, fields: dict[str, Any]
) -> None:
    resident, base = serve(name, dtype=dtype)
    before = {key: value.clone() for key, value in resident.bundle.module.state_dict().items()}
    module, recipe = tuned(resident.bundle, **fields)
    was = logits(module).detach()
    learn(module)
    assert form_of(recipe, kinds.CAUSAL) == MODEL
    store(module.eval(), recipe, resident.bundle, tmp_path)
    after = resident.bundle.module.state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items()), "what serves has not moved"
    with torch.no_grad():
        mine = logits(module)
        theirs = logits(transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=getattr(torch, dtype)).eval())
    scale = mine.abs().max()
    assert (mine - theirs).abs().max() / scale < (1e-5 if dtype == "float32" else 5e-2)
    assert (mine - was).abs().max() / scale > 0.1
    engine = Engine(ops)
    engine.load("m", tiny_models.source_of(tmp_path), LoadSettings(dtype=dtype), tiny_models.silent)
    if dtype == "float32":
        plain, _ = tiny_models.greedy(transformers.AutoModelForCausalLM.from_pretrained(tmp_path), [5, 6, 7], 8)
        assert tiny_models.choice(engine, tiny_models.ask([5, 6, 7], max_tokens=8)).tokens == plain
    assert base != tmp_path


def test_an_output_layer_that_was_saved_whole_moves_and_peft_loads_it(serve: Serve, tmp_path: Path) -> None:
    resident, folder = serve("llama", dtype="float32")
    module, _ = tuned(resident.bundle, method="lora", options={**HEAD["options"], "result": ADAPTER})
    heads = [name for name, value in module.named_parameters() if value.requires_grad and "lm_head" in name]
    assert heads == ["base_model.model.lm_head.modules_to_save.default.weight"]
    first = module.get_parameter(heads[0]).detach().clone()
    learn(module)
    assert not torch.equal(first, module.get_parameter(heads[0]))
    export(module.eval(), tmp_path)
    plain = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        loaded = peft.PeftModel.from_pretrained(plain, tmp_path).eval()
        torch.testing.assert_close(logits(loaded), logits(module), rtol=1e-5, atol=1e-5)


def test_a_head_of_classes_comes_along_with_its_names(ops: OpTable, tmp_path: Path) -> None:
    name = "BertForSequenceClassification"
    tiny_kinds.text_model(tmp_path / "base", name, family="Bert", num_labels=2)
    engine = Engine(ops)
    engine.load("m", tiny_models.source_of(tmp_path / "base"), LoadSettings(dtype="float32"), tiny_models.silent)
    bundle = engine.base("m").bundle
    module, recipe = tuned(bundle, method="lora", objective="classification")
    with torch.no_grad():
        for value in module.parameters():
            value.add_(0.1 * torch.randn_like(value) if value.requires_grad else 0)
    (tmp_path / "out").mkdir()
    store(module.eval(), recipe, bundle, tmp_path / "out", ("bad", "good"))
    loaded = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "out").eval()
    ids = IDS % 90 + 5
    with torch.no_grad():
        torch.testing.assert_close(loaded(ids).logits, module(input_ids=ids).logits, rtol=1e-4, atol=1e-5)
    assert loaded.config.id2label == {0: "bad", 1: "good"}
    engine.load("t", tiny_models.source_of(tmp_path / "out"), LoadSettings(dtype="float32"), tiny_models.silent)


@pytest.mark.parametrize(
    ("fields", "form"),
    [
        ({"method": "lora"}, "adapter"), ({"method": "dora"}, "model"), ({"method": "bitfit"}, "model"),
        ({"method": "dora", "options": {"result": "adapter"}}, "adapter"),
        ({"method": "lora", "options": {"result": "model"}}, "model"),
        ({"method": "prefix", "options": {"result": "adapter"}}, "adapter"), ({"method": "prompt"}, "model"),
    ],
)  # fmt: skip
def test_the_form_is_the_one_that_is_served_or_was_asked_for(fields: dict[str, Any], form: str) -> None:
    assert form_of(Recipe.of(fields), kinds.CAUSAL) == form


def test_a_job_says_what_it_stores(make: Make) -> None:
    prepared = make(method="ia3")
    assert prepared.plan.facts["result"] == MODEL
    running = Running(prepared)
    running.work(lambda: None)
    assert running.manifest["kind"] == "model" and running.manifest["how"] == "ia3"
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {
        path.name for path in prepared.job.folder.iterdir()
    }  # fmt: skip
    assert make(method="lora").plan.facts["result"] == ADAPTER


@pytest.mark.parametrize("method", PROMPTS)
def test_what_would_not_be_served_is_refused_before_any_work(method: str) -> None:
    recipe = Recipe.of({"method": method, "objective": "seq2seq"})
    with pytest.raises(NotSupported, match=r"options\.result = 'adapter' stores it for that; or take lora"):
        form_of(recipe, kinds.SEQ2SEQ)
    stored = Recipe.of({"method": method, "options": {"result": "adapter"}})
    assert form_of(stored, kinds.SEQ2SEQ) == ADAPTER


@pytest.mark.parametrize(
    ("name", "dtype", "method"),
    slow_but(
        [("llama", "float32", "prompt"), ("gpt2", "float32", "prefix"), ("gpt2", "float32", "p-tuning")],
        [
            (name, dtype, method) for name in ("llama", "qwen2", "gpt2", "gemma2") for method in PROMPTS
            for dtype in ("float32", "bfloat16")
        ],
    ),
)  # fmt: skip
def test_learned_tokens_stand_before_each_text(
    serve: Serve, ops: OpTable, tmp_path: Path, name: str, dtype: str, method: str
) -> None:
    resident, _ = serve(name, dtype=dtype)
    bundle, base = resident.bundle, training_view(resident.bundle)
    module, recipe = tuned(bundle, method=method, options={"virtual_tokens": 4})
    learn(module, 8)
    store(module.eval(), recipe, bundle, tmp_path)
    engine = Engine(ops)
    told = engine.load("m", tiny_models.source_of(tmp_path), LoadSettings(dtype=dtype), tiny_models.silent)
    assert told.rung == "G" and told.context == bundle.about.context - 4 and told.tasks[0] == "text-generation"
    assert any("learned tokens stand before each text" in why for why in told.rung_reasons)
    assert engine.base("m").bundle.about.learned == 4
    texts = ([5, 6, 7], tiny_models.PROMPT, [9])
    said = [tiny_models.choice(engine, tiny_models.ask(list(each), max_tokens=8)).tokens for each in texts]
    if dtype == "float32":
        assert said == [greedy(module, list(each), 8) for each in texts]
        assert said != [greedy(base, list(each), 8) for each in texts], "they make a difference"
    with pytest.raises(NotSupported, match="beams"):
        engine.submit(tiny_models.ask([5], max_tokens=2, beams=2))


@pytest.mark.parametrize("method", PROMPTS)
def test_so_they_do_where_the_embedding_is_the_output_layer(ops: OpTable, tmp_path: Path, method: str) -> None:
    tiny_models.build(tmp_path / "base", "llama", tie_word_embeddings=True)
    engine = Engine(ops)
    engine.load("m", tiny_models.source_of(tmp_path / "base"), LoadSettings(dtype="float32"), tiny_models.silent)
    bundle = engine.base("m").bundle
    module, recipe = tuned(bundle, method=method, options={"virtual_tokens": 4})
    learn(module)
    (tmp_path / "out").mkdir()
    store(module.eval(), recipe, bundle, tmp_path / "out")
    engine.load("t", tiny_models.source_of(tmp_path / "out"), LoadSettings(dtype="float32"), tiny_models.silent)
    said = tiny_models.choice(engine, tiny_models.ask([5, 6, 7], model="t", max_tokens=8)).tokens
    assert said == greedy(module, [5, 6, 7], 8)


@torch.no_grad()
def greedy(module: Any, prompt: list[int], count: int) -> list[int]:
    tokens = list(prompt)
    for _ in range(count):
        ids = torch.tensor([tokens])
        given = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "use_cache": False}
        tokens.append(int(module(**given).logits[0, -1].argmax()))
    return tokens[len(prompt) :]


@pytest.mark.parametrize(("method", "result"), [("full", "adapter"), ("bottleneck", "adapter")])
def test_a_form_that_a_method_does_not_have_is_refused(method: str, result: str) -> None:
    with pytest.raises(BadArgument, match=f"{method} has no {result}") as raised:
        Recipe.of({"method": method, "options": {"result": result}})
    assert raised.value.name == "result"


def test_an_embedding_does_not_move_apart_from_its_output_layer(ops: OpTable, tmp_path: Path) -> None:
    tiny_models.build(tmp_path / "base", "llama", tie_word_embeddings=True)
    engine = Engine(ops)
    engine.load("m", tiny_models.source_of(tmp_path / "base"), LoadSettings(), tiny_models.silent)
    bundle = engine.base("m").bundle
    with warnings.catch_warnings(), pytest.raises(NotSupported, match="its output layer is its embedding, too"):
        warnings.simplefilter("ignore")
        tuned(bundle, **HEAD)
    module, recipe = tuned(bundle, method="dora")
    store(module.eval(), recipe, bundle, tmp_path)
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    assert isinstance(loaded, nn.Module)
