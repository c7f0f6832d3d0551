"""Each method of PEFT around a model that serves: it learns, nothing else moves, and plain PEFT loads it."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import peft
import pytest
import tiny_models
import torch
import transformers
from slow_cases import slow_but
from torch.nn import functional
from tuning_runs import Serve

from llmos.drivers.engine import kinds
from llmos.drivers.tuning.methods import LORA, WHOLE, adapt, companion_of, export
from llmos.drivers.tuning.recipe import Recipe
from llmos.drivers.tuning.words import METHODS, PROMPTS
from llmos.drivers.tuning.resident import ResidentLinear, training_view
from llmos.syscalls.errors import BadArgument, NotSupported

IDS = torch.tensor([tiny_models.PROMPT])
ADAPTERS = (*LORA, "adalora", "ia3", *PROMPTS)
STEPS = 6


def logits(module: Any) -> torch.Tensor:
    """Of the tokens of the text: virtual ones before them have some too."""
    answer: torch.Tensor = module(input_ids=IDS, attention_mask=torch.ones_like(IDS), use_cache=False).logits
    return answer[:, -IDS.shape[1] :]


def learn(adapted: Any, recipe: Recipe) -> list[float]:
    """Losses of a few steps on one text."""
    moving = [parameter for parameter in adapted.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(moving, lr=3e-2)
    companion = companion_of(adapted, recipe)
    losses = []
    for step in range(1, STEPS + 1):
        loss = functional.cross_entropy(logits(adapted)[0, :-1].float(), IDS[0, 1:])
        loss.backward()
        optimizer.step()
        if companion is not None:
            companion.stepped(step)
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def loaded(folder: Path, adapter: Path, dtype: str) -> Any:
    module = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the library's, of itself
        return peft.PeftModel.from_pretrained(module, adapter).eval()


@pytest.mark.parametrize(
    ("name", "dtype", "method"),
    slow_but(
        [("llama", "float32", method) for method in ("lora", "adalora", "ia3", "prefix")],
        [(name, dtype, each) for name in ("llama", "gpt2") for dtype in ("float32", "bfloat16") for each in ADAPTERS],
    ),
)
def test_it_learns_and_plain_peft_loads_it(
    serve: Serve, tmp_path: Path, name: str, dtype: str, method: str
) -> None:  # fmt: skip
    resident, folder = serve(name, dtype=dtype)
    before = {key: value.clone() for key, value in resident.bundle.module.state_dict().items()}
    recipe = Recipe.of({"method": method, "rank": 4})
    adapted = adapt(training_view(resident.bundle), kinds.CAUSAL, recipe, STEPS, "/models/base")
    losses = learn(adapted, recipe)
    assert losses[-1] < losses[0]
    after = resident.bundle.module.state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items()), "the base has not moved"
    said = export(adapted.eval(), tmp_path)
    assert said["base_model_name_or_path"] == "/models/base"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    with torch.no_grad():
        mine, theirs = logits(adapted), logits(loaded(folder, tmp_path, dtype))
    largest = float((mine - theirs).abs().max() / theirs.abs().max())
    assert largest < (1e-6 if dtype == "float32" else 3e-2)


@pytest.mark.parametrize("method", slow_but(["lora", "adalora", "prefix"], ADAPTERS))
def test_what_moves_is_float32_and_all_of_it_the_adapters(serve: Serve, method: str) -> None:
    resident, _ = serve("llama", dtype="bfloat16")
    adapted = adapt(training_view(resident.bundle), kinds.CAUSAL, Recipe.of({"method": method}), 10)
    moving = {name: parameter for name, parameter in adapted.named_parameters() if parameter.requires_grad}
    assert moving and {parameter.dtype for parameter in moving.values()} == {torch.float32}
    words = ("lora_", "ia3_l", "prompt_encoder")
    assert all(any(word in name for word in words) for name in moving), sorted(moving)


def test_without_targets_every_linear_layer_but_the_head_is_one(serve: Serve) -> None:
    resident, _ = serve("llama")
    view = training_view(resident.bundle)
    wanted = {name for name, part in view.named_modules() if isinstance(part, ResidentLinear)} - {"lm_head"}
    adapted = adapt(view, kinds.CAUSAL, Recipe.of({"method": "lora"}), 10)
    adapters = (name for name, part in adapted.named_modules() if hasattr(part, "lora_A"))
    targets = {name.removeprefix("base_model.model.") for name in adapters}
    assert targets == wanted and len(wanted) == 14


def test_a_target_that_is_not_there_is_named_with_those_that_are(serve: Serve) -> None:
    resident, _ = serve("llama")
    recipe = Recipe.of({"method": "lora", "target_modules": ["query"]})
    with pytest.raises(BadArgument, match="down_proj, gate_proj, k_proj") as raised:
        adapt(training_view(resident.bundle), kinds.CAUSAL, recipe, 10)
    assert raised.value.name == "target_modules" and raised.value.got == "query"


def test_a_kind_without_virtual_tokens_says_so() -> None:
    recipe = Recipe.of({"method": "prompt", "objective": "masked-lm"})
    with pytest.raises(NotSupported, match="take lora"):
        adapt(torch.nn.Linear(1, 1), kinds.MASKED, recipe, 10)


def test_every_method_of_the_recipe_is_one_of_ours() -> None:
    assert set(METHODS) == {*ADAPTERS, *WHOLE, "bottleneck"}


def test_adalora_gives_ranks_away_and_goes_on_where_it_was(serve: Serve) -> None:
    """Its importances are state: a run that takes them up again chooses the same ranks."""
    resident, _ = serve("llama", dtype="float32")
    recipe = Recipe.of({"method": "adalora", "rank": 2, "target_modules": ["q_proj", "v_proj"]})

    def run(pause: int) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        adapted = adapt(training_view(resident.bundle), kinds.CAUSAL, recipe, 10)
        companion = companion_of(adapted, recipe)
        assert companion is not None
        optimizer = torch.optim.SGD([each for each in adapted.parameters() if each.requires_grad], lr=0.5)
        for step in range(1, 11):
            functional.cross_entropy(logits(adapted)[0, :-1], IDS[0, 1:]).backward()
            optimizer.step()
            companion.stepped(step)
            optimizer.zero_grad()
            if step == pause:
                kept = {name: value.clone() for name, value in companion.states().items()}
                assert kept
                companion = companion_of(adapted, recipe)
                assert companion is not None
                companion.restore(kept)
        return {name: value.detach() for name, value in adapted.named_parameters() if value.requires_grad}

    whole, paused = run(0), run(5)
    assert all(torch.equal(whole[name], paused[name]) for name in whole)
    gone = [int((value == 0).sum()) for name, value in whole.items() if "lora_E" in name]
    assert sum(gone) == 4, "four layers began with three ranks each and end with two on average"


def test_others_have_no_companion(serve: Serve) -> None:
    recipe = Recipe.of({"method": "lora"})
    assert companion_of(adapt(training_view(serve("llama")[0].bundle), kinds.CAUSAL, recipe, 1), recipe) is None
