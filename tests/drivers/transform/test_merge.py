"""Merging whole models: what is written, what is refused, that it loads."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from stored_models import matrices, store
from tiny_models import byte_level, config_of, random_module, silent, source_of

from llmos.drivers.transform import merge, merging
from llmos.syscalls.errors import BadArgument, BadModel, NotSupported

MERGE = """
import sys
from pathlib import Path
from llmos.drivers.contract import ModelSource, SourceFile
from llmos.drivers.transform import merge
def source(folder):
    return ModelSource("/m", "1", [SourceFile(path.name, path, path.stat().st_size) for path in folder.iterdir()])
def most(): return int(next(l for l in open("/proc/self/status") if l.startswith("VmHWM")).split()[1])
before, top = most(), Path(sys.argv[1])
recipe = {"method": "ties", "options": {"density": 0.3}}
merge.run([source(top / str(n)) for n in range(3)], recipe, top / "out", lambda *said: None)
print(most() - before)
"""
SMALL = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "vocab_size": 64}
NORM, QUERY = "model.norm.weight", "model.layers.0.self_attn.q_proj.weight"


def saved(folder: Path, seed: int, kind: str = "llama", **changes: Any) -> Path:
    random_module(config_of(kind, **{**SMALL, **changes}), seed).bfloat16().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Sequence[Path]:
    """Three models of one shape and different weights, the first with a tokenizer."""
    folder = tmp_path_factory.mktemp("models")
    byte_level().save_pretrained(folder / "m0")
    return [saved(folder / f"m{seed}", seed) for seed in range(3)]


def merged(sources: Sequence[Path], out: Path, **recipe: Any) -> Mapping[str, torch.Tensor]:
    out.mkdir(exist_ok=True)
    answer = merge.run([source_of(path) for path in sources], {"kind": "merge", **recipe}, out, silent)
    assert answer["metrics"]["method"] == recipe.get("method", "linear")
    return load_file(out / "model.safetensors")


def test_a_merge_is_a_whole_model_with_the_tokenizer_and_dtype_of_the_first(
    models: Sequence[Path], tmp_path: Path
) -> None:
    told: list[tuple[int, int, str, str]] = []
    merge.run([source_of(path) for path in models], {"weights": [1, 1, 2]}, tmp_path, lambda *said: told.append(said))
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype="auto")
    assert {part.dtype for part in loaded.parameters()} == {torch.bfloat16}
    parts = [load_file(path / "model.safetensors") for path in models]
    for name, value in loaded.state_dict().items():
        wanted = sum(weight * part[name].float() for weight, part in zip((0.25, 0.25, 0.5), parts, strict=True))
        torch.testing.assert_close(value.float(), wanted, rtol=2**-8, atol=1e-6)
    assert transformers.AutoTokenizer.from_pretrained(tmp_path).vocab_size == byte_level().vocab_size
    count = len(parts[0])
    assert [said for said in told if said[2] == "tensors"] == [(n, count, "tensors", "merge") for n in range(count)]


def test_weights_are_divided_by_their_sum_unless_they_are_to_be_used_as_they_are(
    models: Sequence[Path], tmp_path: Path
) -> None:
    one, other = (load_file(path / "model.safetensors")[QUERY].float() for path in models[:2])
    plain = merged(models[:2], tmp_path / "a")[QUERY]
    torch.testing.assert_close(plain, ((one + other) / 2).bfloat16())
    given = merged(models[:2], tmp_path / "b", weights=[2, -1], options={"normalize": False})[QUERY]
    torch.testing.assert_close(given, (2 * one - other).bfloat16())


def test_each_method_gives_what_its_formula_says(models: Sequence[Path], tmp_path: Path) -> None:
    base, one, other = (load_file(path / "model.safetensors")[QUERY].float() for path in models)
    ties = merged(models, tmp_path / "t", method="ties", weights=[1, 3], options={"density": 0.4, "scale": 0.5})[QUERY]
    least = [merging.least_kept(base, each, 0.4) for each in (one, other)]
    torch.testing.assert_close(ties, merging.ties(base, [one, other], [0.25, 0.75], least, 0.5).bfloat16())
    arc = merged(models[:2], tmp_path / "s", method="slerp", weights=[0.25, 0.75])[QUERY]
    torch.testing.assert_close(arc, merging.linear([base, one], merging.slerp_weights(base, one, 0.75)).bfloat16())
    dare = {"method": "dare", "weights": [1, 3], "options": {"seed": 5}}
    drawn = [torch.Generator().manual_seed(merging.seed_of(5, QUERY, number)) for number in range(2)]
    found = merged(models, tmp_path / "d", **dare)[QUERY]
    wanted = merging.dare(base.flatten(), [one.flatten(), other.flatten()], [0.25, 0.75], 0.5, drawn)
    torch.testing.assert_close(found.flatten(), wanted.bfloat16())
    assert torch.equal(found, merged(models, tmp_path / "e", **dare)[QUERY])


@pytest.mark.parametrize("method", ["linear", "slerp", "ties"])
def test_tensors_in_blocks_are_merged_as_whole_ones(
    models: Sequence[Path], tmp_path: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = merged(models[:2], tmp_path / "whole", method=method)
    monkeypatch.setattr(merging, "BLOCK", 37)
    blocks = merged(models[:2], tmp_path / "blocks", method=method)
    for name, value in whole.items():
        torch.testing.assert_close(blocks[name], value)


@pytest.mark.slow
def test_memory_is_a_tensor_and_a_shard(tmp_path: Path) -> None:
    for seed in range(3):
        store(tmp_path / str(seed), matrices(3, 2048, 4096, seed=seed))  # 96 MiB each, 32 MiB a tensor
    (tmp_path / "out").mkdir()
    done = subprocess.run((sys.executable, "-c", MERGE, str(tmp_path)), check=True, capture_output=True, text=True)
    assert int(done.stdout) < 400 << 10, f"{done.stdout} KiB, of which the result is 96 MiB"


def test_models_that_differ_are_refused_with_the_tensor(models: Sequence[Path], tmp_path: Path) -> None:
    wide = saved(tmp_path / "wide", 0, intermediate_size=32)
    with pytest.raises(BadModel, match=r"mlp.*weight has the shape .*24.* in /models/m0 and .*32.* in /models/wide"):
        merged([models[0], wide], tmp_path / "out")
    deep = saved(tmp_path / "deep", 0, num_hidden_layers=2)
    for order in ([models[0], deep], [deep, models[0]]):
        with pytest.raises(BadModel, match=r"/models/m0 has no tensor model\.layers\.1\..*, /models/deep has one"):
            merged(order, tmp_path / "out")
    with pytest.raises(BadModel, match="of the type mistral and /models/m0 is of llama"):
        merged([models[0], saved(tmp_path / "other", 0, "mistral")], tmp_path / "out")


def test_a_quantized_model_is_not_merged(models: Sequence[Path], tmp_path: Path) -> None:
    sources = [source_of(path) for path in models[:2]]
    sources[1] = replace(sources[1], manifest={"quant": "w4a16-g128"})
    with pytest.raises(NotSupported, match="quantized"):
        merge.run(sources, {}, tmp_path, silent)


@pytest.mark.parametrize(
    ("count", "recipe", "said"),
    [
        (2, {"method": "slurp"}, "did you mean 'slerp'"),
        (3, {"method": "slerp"}, "slerp merges two models, 3"),
        (2, {"weights": [1]}, "for each of 2 models, 1 are given"),
        (2, {"method": "ties", "weights": [1, 1]}, "for each of 1 models, 2 are given; the base has none"),
        (2, {"weights": [1, -1]}, "a sum above 0"),
        (2, {"weights": [1, float("nan")]}, "finite"),
        (2, {"method": "dare", "options": {"density": 0}}, "density is 0"),
        (2, {"options": {"densty": 0.5}}, "did you mean 'density'"),
        (2, {"options": {"seed": True}}, "the option seed is True; it takes int"),
    ],
)
def test_recipes_that_mean_nothing_are_refused(
    models: Sequence[Path], tmp_path: Path, count: int, recipe: dict[str, Any], said: str
) -> None:
    with pytest.raises(BadArgument, match=said):
        merged(models[:count], tmp_path, **recipe)
    assert not list(tmp_path.iterdir())


def test_numbers_that_are_not_floating_stay_those_of_the_first(tmp_path: Path) -> None:
    for number, name in enumerate("ab"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
        tensors = {"count": torch.tensor([number + 7]), "w": torch.full((2,), float(number))}
        save_file(tensors, folder / "model.safetensors")
    found = merged([tmp_path / "a", tmp_path / "b"], tmp_path / "out")
    assert found["count"].tolist() == [7] and found["w"].tolist() == [0.5, 0.5]
