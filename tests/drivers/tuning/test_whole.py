"""Methods that move the model itself: they learn as plain training of the library's model does, and the library loads
what comes of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny_kinds
import tiny_models
import torch
import transformers
from slow_cases import slow_but
from torch import Tensor, nn
from tuning_runs import Serve

from llmos.drivers.contract import LoadSettings
from llmos.drivers.engine import kinds
from llmos.drivers.engine.engine import Engine
from llmos.drivers.ops.table import OpTable
from llmos.drivers.tuning.methods import adapt
from llmos.drivers.tuning.recipe import Recipe
from llmos.drivers.tuning.resident import training_view
from llmos.drivers.tuning.whole import export, tensors_of
from llmos.syscalls.errors import NotSupported

IDS = torch.tensor([tiny_models.PROMPT])
LAST: dict[str, tuple[str, ...]] = {
    "gpt2": ("transformer.h.{last}.", "transformer.ln_f.", "lm_head."),
    "llama": ("model.layers.{last}.", "model.norm.", "lm_head."),
}  # fmt: skip
"""What the last layer is, with the norm behind it and the output layer."""

CASES = [
    *((name, "full") for name in ("llama", "qwen2", "qwen3", "gemma2", "gpt2", "phi3", "mixtral")),
    *((name, "last-layers") for name in LAST), ("gpt2", "bitfit"), ("qwen2", "bitfit"),
]  # fmt: skip
QUICK = [("llama", "full"), ("gemma2", "full"), ("gpt2", "last-layers"), ("qwen2", "bitfit")]


def moves(name: str, method: str, layers: int) -> Callable[[str], bool]:
    """Which parameters of the library's model do."""
    if method == "full":
        return lambda _: True
    if method == "bitfit":
        return lambda each: each.endswith("bias")
    last = tuple(each.format(last=layers - 1) for each in LAST[name])
    return lambda each: each.startswith(last)


def learn(module: nn.Module, steps: int = 3) -> list[float]:
    """Plain gradient descent on one text."""
    moving = [each for each in module.parameters() if each.requires_grad]
    losses = []
    for _ in range(steps):
        loss = module(input_ids=IDS, labels=IDS, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(moving, 1.0)
        with torch.no_grad():
            for each in moving:
                assert each.grad is not None
                each -= 0.05 * each.grad
                each.grad = None
        losses.append(loss.item())
    return losses


def state(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def logits(module: Any) -> Tensor:
    with torch.no_grad():
        found: Tensor = module.eval()(input_ids=IDS, use_cache=False).logits
        return found.float()


@pytest.mark.parametrize(("name", "method"), slow_but(QUICK, CASES))
def test_it_learns_as_the_librarys_model_and_is_written_as_one(
    serve: Serve, tmp_path: Path, name: str, method: str
) -> None:
    resident, folder = serve(name, dtype="float32")
    before = state(resident.bundle.module)
    view = adapt(training_view(resident.bundle), kinds.CAUSAL, Recipe.of({"method": method}), 3)
    plain = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    does = moves(name, method, plain.config.num_hidden_layers)
    for key, value in plain.named_parameters():
        value.requires_grad_(does(key))
    was = state(plain)
    losses, wanted = learn(view), learn(plain)
    assert losses == pytest.approx(wanted, rel=1e-4) and losses[-1] < losses[0]
    after = resident.bundle.module.state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items()), "what serves has not moved"
    export(view, resident.bundle, tmp_path)
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    torch.testing.assert_close(logits(loaded), logits(view), rtol=1e-4, atol=1e-5)
    theirs, found = plain.state_dict(), loaded.state_dict()
    assert found.keys() == theirs.keys()
    for key, value in theirs.items():
        torch.testing.assert_close(found[key], value, rtol=1e-3, atol=1e-5)
        if not does(key) and "lm_head" not in key:
            assert torch.equal(found[key], was[key]), f"{key} is frozen"


@pytest.mark.parametrize(("name", "method"), [("llama", "full"), ("gpt2", "last-layers"), ("qwen2", "bitfit")])
def test_weights_of_another_dtype_stay_in_it(serve: Serve, tmp_path: Path, name: str, method: str) -> None:
    resident, _ = serve(name, dtype="bfloat16")
    view = adapt(training_view(resident.bundle), kinds.CAUSAL, Recipe.of({"method": method}), 3)
    moving = [value for value in view.parameters() if value.requires_grad]
    assert moving and {value.dtype for value in moving} == {torch.float32}
    losses = learn(view)
    assert losses[-1] < losses[0]
    export(view, resident.bundle, tmp_path)
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    assert loaded.dtype == torch.bfloat16
    apart = (logits(loaded) - logits(view)).abs().max() / logits(view).abs().max()
    assert apart < 0.05


def test_what_was_quantized_is_written_as_what_it_stands_for(serve: Serve, tmp_path: Path) -> None:
    quant = {"width": 8, "activations": "model"}
    resident, _ = serve("llama", dtype="float32", quant=quant)
    view = adapt(training_view(resident.bundle), kinds.CAUSAL, Recipe.of({"method": "last-layers"}), 3)
    assert learn(view)[-1] < 6.5
    export(view, resident.bundle, tmp_path)
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    torch.testing.assert_close(logits(loaded), logits(view), rtol=1e-3, atol=1e-4)
    assert "quantization_config" not in json.loads((tmp_path / "config.json").read_text())


def test_classes_have_the_names_of_the_data(ops: OpTable, tmp_path: Path) -> None:
    tiny_kinds.text_model(tmp_path / "base", "BertForSequenceClassification", family="Bert", num_labels=2)
    engine = Engine(ops)
    engine.load("m", tiny_models.source_of(tmp_path / "base"), LoadSettings(), tiny_models.silent)
    bundle = engine.base("m").bundle
    view = adapt(training_view(bundle), kinds.SEQUENCE, Recipe.of({"method": "full"}), 3)
    (tmp_path / "out").mkdir()
    export(view, bundle, tmp_path / "out", ("bad", "good"))
    loaded = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    assert loaded.config.id2label == {0: "bad", 1: "good"} and loaded.config.label2id == {"bad": 0, "good": 1}
    ids = IDS % 90 + 5
    with torch.no_grad():
        torch.testing.assert_close(loaded.eval()(ids).logits, view.eval()(ids).logits.to(loaded.dtype))
    assert {name for name, _ in tensors_of(view)} == set(loaded.state_dict())


def test_what_is_not_there_cannot_move() -> None:
    llama = tiny_llama()
    with pytest.raises(NotSupported, match="no biases; take lora or last-layers"):
        adapt(llama, kinds.CAUSAL, Recipe.of({"method": "bitfit"}), 3)
    with pytest.raises(NotSupported, match="no list of layers is found"):
        adapt(nn.Sequential(nn.Linear(2, 2)), kinds.CAUSAL, Recipe.of({"method": "last-layers"}), 3)


@pytest.mark.parametrize(("name", "method"), [("gemma2", "full"), ("llama", "last-layers")])
def test_an_output_layer_that_is_the_embedding_stays_so(ops: OpTable, tmp_path: Path, name: str, method: str) -> None:
    folder = tmp_path / "base"
    tiny_models.random_module(tiny_models.config_of(name, tie_word_embeddings=True)).save_pretrained(folder)
    tiny_models.byte_level().save_pretrained(folder)
    engine = Engine(ops)
    engine.load("m", tiny_models.source_of(folder), LoadSettings(dtype="float32"), tiny_models.silent)
    bundle = engine.base("m").bundle
    view = adapt(training_view(bundle), kinds.CAUSAL, Recipe.of({"method": method}), 3)
    plain = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    last = ("model.layers.1.", "model.norm.")
    for key, value in plain.named_parameters():
        value.requires_grad_(method == "full" or key.startswith(last))
    losses = learn(view)
    assert losses == pytest.approx(learn(plain), rel=1e-4) and losses[-1] < losses[0]
    (tmp_path / "out").mkdir()
    export(view, bundle, tmp_path / "out")
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)
    assert loaded.lm_head.weight.data_ptr() == loaded.model.embed_tokens.weight.data_ptr()
    torch.testing.assert_close(logits(loaded), logits(view), rtol=1e-4, atol=1e-5)
    names = [name for name, _ in tensors_of(view)]
    assert len(names) == len(set(names)) and "lm_head.weight" not in names


def tiny_llama() -> Any:
    config = transformers.LlamaConfig(
        vocab_size=24, hidden_size=16, intermediate_size=32, num_hidden_layers=3, num_attention_heads=2,
        num_key_value_heads=1,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config).requires_grad_(False)


def test_so_many_last_layers_move() -> None:
    module = tiny_llama()
    options = {"layers": 2}
    adapt(module, kinds.CAUSAL, Recipe.of({"method": "last-layers", "options": options}), 3)
    moving = {name for name, value in module.named_parameters() if value.requires_grad}
    assert {name.split(".")[2] for name in moving if ".layers." in name} == {"1", "2"}
    assert {name for name in moving if ".layers." not in name} == {"model.norm.weight", "lm_head.weight"}
