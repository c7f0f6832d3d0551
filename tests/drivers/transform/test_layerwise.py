"""Quantizing layer by layer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from tiny_models import build, silent, source_of

from llmos.drivers.ops.quantized import Scheme
from llmos.drivers.transform import shards
from llmos.drivers.transform.calibration import Layer, walk
from llmos.drivers.transform.layerwise import EMPTY, Layerwise
from llmos.drivers.transform.writing import Writing
from llmos.syscalls.errors import BadArgument, NotSupported

W4, W8 = Scheme(4, 64), Scheme(8, 64)
PIECES = torch.randint(3, 250, (3, 24), generator=torch.Generator().manual_seed(0))
NAMES = [
    f"model.layers.{n}.{part}"
    for n in range(2)
    for part in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "mlp.down_proj")
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("layerwise") / "m")


Worked = Callable[[Layerwise], None]


def work(model: Path, folder: Path, method: str, does: Worked, scheme: Scheme = W4) -> Layerwise:
    module = transformers.AutoModelForCausalLM.from_pretrained(model).eval().requires_grad_(False)
    with shards.opened(source_of(model)) as tensors:
        made = Layerwise(module, dict.fromkeys(NAMES, scheme), Writing(folder, tensors, module), method, silent)
        does(made)
    return made


def test_later_layers_learn_from_what_changed_ones_answer(model: Path, tmp_path: Path) -> None:
    """The error of a layer that is told is that of its outputs for inputs of the quantized model before it."""
    made = work(model, tmp_path, "gptq", lambda each: each.run(PIECES))
    assert set(made.errors) == set(NAMES) and all(0 < error < 0.1 for error in made.errors.values())
    assert all(made.module.get_submodule(name).weight.data is not None for name in NAMES)
    assert made.module.get_submodule(NAMES[0]).weight.shape == EMPTY.shape, "its memory is given back"
    plain = work(model, tmp_path, "rtn", lambda each: each.run(None))
    assert set(plain.errors) == set(NAMES)
    assert plain.sizes == made.sizes and plain.weights == made.weights


@pytest.mark.parametrize("method", ["awq", "smoothquant"])
def test_factors_go_into_norms_that_are_written(model: Path, tmp_path: Path, method: str) -> None:
    made = work(model, tmp_path, method, lambda each: each.run(PIECES))
    assert any(path.endswith("input_layernorm") for path in made.folded)
    assert set(made.errors) == set(NAMES)


def test_a_budget_widens_siblings_together(model: Path, tmp_path: Path) -> None:
    def fit(budget: int) -> dict[str, Scheme]:
        return work(model, tmp_path, "rtn", lambda each: each.fit(budget, PIECES)).plan

    shapes = {name: (64, 128) if "down" in name else (64 if "q_" in name else 32, 64) for name in NAMES}
    narrow = sum(n * round(k * W4.bits_per_weight(k)) // 8 for n, k in shapes.values())
    down = [name for name in NAMES if "down" in name]
    free = dict.fromkeys(NAMES, W8) | dict.fromkeys(down, W4)
    assert fit(narrow) == free, "rows of 64 inputs take no more with 8 bits than with 4, which are filled up to 128"
    with pytest.raises(BadArgument, match="byte_budget"):
        fit(narrow - 1)
    some = fit(narrow + 6000)
    assert sorted(some[name].width for name in down) == [4, 8]
    for n in range(2):
        parts = [some.get(f"model.layers.{n}.self_attn.{part}") for part in ("q_proj", "k_proj", "v_proj")]
        assert len(set(parts)) == 1
    assert fit(10**9) == {}, "all of it as it was"


def test_a_layer_that_runs_twice_is_refused(model: Path, tmp_path: Path) -> None:
    def twice(each: Layerwise) -> None:
        layers = each.module.model.layers
        layers[1].forward = layers[0].forward
        visited: list[Layer] = []
        walk(each.module, PIECES, visited.append)
        each._visit(visited[0])
        each._visit(visited[0])

    with pytest.raises(NotSupported, match="runs more than once"):
        work(model, tmp_path, "gptq", twice)
