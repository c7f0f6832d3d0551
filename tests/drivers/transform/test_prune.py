"""Models with fewer weights, heads and layers: they load, and compute what is left."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from stored_models import matrices, store, stored
from tiny_models import byte_level, config_of, random_module, silent, source_of

from llmos.drivers.contract import ModelSource
from llmos.drivers.transform import prune
from llmos.drivers.transform.observing import observe
from llmos.syscalls.errors import BadArgument, NotSupported

UP = "model.layers.0.mlp.up_proj.weight"


def saved(folder: Path, kind: str = "qwen2", **changes: Any) -> Path:
    module = random_module(config_of(kind, **changes))
    module.save_pretrained(folder)
    byte_level().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("models") / "fox", num_hidden_layers=4)


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> ModelSource:
    file = tmp_path_factory.mktemp("text") / "notes.txt"
    file.write_text("the quick brown fox jumps over the lazy dog and the other dog. " * 40)
    source = source_of(file.parent)
    return replace(source, path="/notes.txt")


def pruned(folder: Path, out: Path, *texts: ModelSource, **recipe: Any) -> tuple[Any, dict[str, Any]]:
    """The result as transformers loads it, and its report."""
    out.mkdir(exist_ok=True)
    fields = prune.run([source_of(folder), *texts], {"kind": "prune", **recipe}, out, silent)
    report = json.loads((out / "pruning.json").read_text())
    assert fields["metrics"]["method"] == report["method"]
    loaded, info = transformers.AutoModelForCausalLM.from_pretrained(out, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    assert transformers.AutoTokenizer.from_pretrained(out).vocab_size == byte_level().vocab_size
    return loaded, report


def zeros(tensor: torch.Tensor) -> float:
    return float((tensor == 0).float().mean())


def test_the_smallest_weights_of_each_matrix_become_0(model: Path, tmp_path: Path) -> None:
    loaded, report = pruned(model, tmp_path, sparsity=0.3)
    before, after = stored(model), loaded.state_dict()
    for name, value in before.items():
        inside = name.endswith("_proj.weight")
        assert zeros(after[name]) == pytest.approx(0.3 if inside else zeros(value), abs=0.001), name
        kept = after[name] != 0
        assert torch.equal(after[name][kept], value[kept])
    cut = before[UP].abs()[after[UP] == 0].max()
    assert cut <= after[UP].abs()[after[UP] != 0].min()
    about = report["modules"][UP.removesuffix(".weight")]
    assert about["error"] == pytest.approx(float((before[UP] - after[UP]).norm() / before[UP].norm()), rel=1e-4)
    assert report["sparsity"] == pytest.approx(0.3, abs=0.001) and len(report["modules"]) == 28


@pytest.mark.parametrize(
    ("name", "shape", "goes"),
    [
        ("model.layers.0.mlp.up_proj.weight", (8, 6), True), ("model.layers.0.mlp.gate.weight", (8, 6), False),
        ("model.layers.0.input_layernorm.weight", (8,), False), ("lm_head.weight", (8, 6), False),
        ("model.layers.0.mlp.up_proj.bias", (8,), False), ("model.embed_tokens.weight", (8, 6), False),
        ("model.layers.0.mixer.conv1d.weight", (8, 1, 4), False), ("model.layers.0.scale.weight", (1, 6), False),
    ],
)  # fmt: skip
def test_matrices_inside_of_layers_are_pruned_but_for_routers(name: str, shape: tuple[int, ...], goes: bool) -> None:
    assert prune.is_prunable(name, shape) is goes


def test_two_of_four_along_the_inputs_however_they_are_stored(model: Path, tmp_path: Path) -> None:
    loaded, _ = pruned(model, tmp_path / "a", options={"pattern": "2:4"})
    assert (loaded.state_dict()[UP].view(-1, 4) == 0).sum(dim=1).eq(2).all()
    loaded, _ = pruned(saved(tmp_path / "gpt2", "gpt2"), tmp_path / "b", options={"pattern": "2:4"})
    turned = loaded.state_dict()["transformer.h.0.mlp.c_fc.weight"].T  # stored [inputs, outputs]
    assert (turned.reshape(-1, 4) == 0).sum(dim=1).eq(2).all()


def test_wanda_prunes_each_output_by_what_its_inputs_are(model: Path, text: ModelSource, tmp_path: Path) -> None:
    loaded, report = pruned(model, tmp_path, text, method="wanda", sparsity=0.5)
    norms = observe(source_of(model), [text], silent).norms["model.layers.0.mlp.up_proj"]
    before, after = stored(model)[UP], loaded.state_dict()[UP]
    score = before.abs() * norms
    for row in range(0, len(before), 17):
        assert int((after[row] == 0).sum()) == before.shape[1] // 2
        assert score[row][after[row] == 0].max() <= score[row][after[row] != 0].min()
    assert report["perplexity_after"] > 1 and report["tokens"] > 100 and "given" in report["text"]
    assert report["sparsity"] == pytest.approx(0.5, abs=0.01)


def test_without_text_wanda_learns_from_what_the_model_writes(model: Path, tmp_path: Path) -> None:
    _, report = pruned(model, tmp_path, method="wanda", options={"pattern": "2:4"})
    assert "model" in report["text"] and report["perplexity_before"] < report["perplexity_after"]


def test_a_layer_that_is_taken_out_is_as_if_it_had_never_been(model: Path, tmp_path: Path) -> None:
    loaded, report = pruned(model, tmp_path, method="layers", options={"layers": [1]})
    assert loaded.config.num_hidden_layers == 3 and len(loaded.config.layer_types) == 3
    assert report["removed"] == 1 and report["bytes_after"] < report["bytes_before"]
    whole = transformers.AutoModelForCausalLM.from_pretrained(model)
    del whole.model.layers[1]
    for number, layer in enumerate(whole.model.layers):
        layer.self_attn.layer_idx = number
    whole.model.config.num_hidden_layers = 3
    ids = torch.tensor([[5, 9, 200, 31]])
    with torch.inference_mode():
        torch.testing.assert_close(loaded(ids).logits, whole(ids, use_cache=False).logits)


def test_the_layers_that_change_least_go(model: Path, text: ModelSource, tmp_path: Path) -> None:
    quiet = tmp_path / "quiet"
    module = transformers.AutoModelForCausalLM.from_pretrained(model)
    with torch.no_grad():
        for part in (module.model.layers[2].mlp.down_proj, module.model.layers[2].self_attn.o_proj):
            part.weight.mul_(1e-4)
    module.save_pretrained(quiet)
    byte_level().save_pretrained(quiet)
    _, report = pruned(quiet, tmp_path / "out", text, method="layers", sparsity=0.25)
    assert report["layers"] == [2]


def test_heads_that_write_nothing_are_taken_out_without_a_trace(tmp_path: Path) -> None:
    folder = saved(tmp_path / "heads", num_attention_heads=6, num_key_value_heads=3, head_dim=8, num_hidden_layers=2)
    module = transformers.AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        for number, layer in enumerate(module.model.layers):
            group = 1 + number
            layer.self_attn.o_proj.weight[:, group * 16 : (group + 1) * 16] = 0
    module.save_pretrained(folder)
    loaded, report = pruned(folder, tmp_path / "out", method="heads", sparsity=0.34)
    assert report["groups"] == {"0": [1], "1": [2]} and report["removed"] == 2
    assert (loaded.config.num_attention_heads, loaded.config.num_key_value_heads) == (4, 2)
    ids = torch.tensor([[5, 9, 200, 31]])
    with torch.inference_mode():
        torch.testing.assert_close(loaded(ids).logits, module(ids).logits)


def test_a_number_of_heads_that_the_architecture_cannot_have_is_not_chosen(tmp_path: Path) -> None:
    folder = saved(tmp_path / "llama", "llama", num_attention_heads=8, num_key_value_heads=8)
    loaded, _ = pruned(folder, tmp_path / "out", method="heads", sparsity=0.6)
    assert loaded.config.num_attention_heads == 4  # 64 numbers are not divided by 3
    with pytest.raises(BadArgument, match=r"8 groups of heads; the parts of them that can go are 0.5, 0.75, 0.875"):
        pruned(folder, tmp_path / "more", method="heads", sparsity=0.25)


RECIPES: Mapping[str, dict[str, Any]] = {
    "did you mean 'wanda'": {"method": "wand", "sparsity": 0.5},
    "it can be 2:4": {"options": {"pattern": "1:4"}},
    "nothing is to be pruned": {},
    "less than one": {"method": "layers", "sparsity": 0.01},
    "x'. cannot go": {"method": "layers", "options": {"layers": ["x"]}},
    "from 0 to 3": {"method": "layers", "options": {"layers": [9]}},
}


@pytest.mark.parametrize("said", RECIPES)
def test_recipes_that_mean_nothing_are_refused(model: Path, tmp_path: Path, said: str) -> None:
    with pytest.raises(BadArgument, match=said):
        pruned(model, tmp_path, **RECIPES[said])


def test_models_that_cannot_be_pruned_are_refused(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    flat = store(tmp_path / "flat", matrices(2))
    with pytest.raises(NotSupported, match="no matrices inside of layers"):
        pruned(flat, tmp_path / "out", sparsity=0.5)
    quantized = store(tmp_path / "q", matrices(2), quantization_config={"quant_method": "llmos"})
    with pytest.raises(NotSupported, match="it is quantized"):
        pruned(quantized, tmp_path / "out", sparsity=0.5)
