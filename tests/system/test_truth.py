"""Four tell the bytes of a model that do not know of each other: the plan, the ledger, the driver's allocator and the
operating system. They agree within 3 % or 64 MiB, for ten shapes of models and for every quantization.

What a step works in (the row `workspace`) is planned for the largest step and given back after each, so what was
measured of it is at most what was planned.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from tiny_models import build

from llmos.userland import boot

MIB = 1 << 20
SHAPES = ("llama", "qwen2", "gemma3_text", "gpt2", "gpt_neox", "opt", "phi", "mixtral", "deepseek_v3", "falcon")
QUANTS = ("w8", "w4", "fp8", "w4a16-g64")
SCHEMES = (
    "w8a16", "w8a8", "w8a16-g0", "w8a16-g32", "w8a8-g0", "w8a8-g64", "w4a16", "w4a8", "fp8",
    "w4a16-g0", "w4a16-g32", "w4a16-g64", "w4a16-g128", "w4a8-g0", "w4a8-g32", "w4a8-g64", "w4a8-g128",
)  # fmt: skip
WIDE = {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 4}
"""So that a group has 128 inputs, and most of the weights are those of linear layers."""
REAL: Mapping[str, Mapping[str, Any]] = {
    "llama": {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 12, "num_attention_heads": 16,
              "num_key_value_heads": 4},
    "gpt2": {"n_embd": 1024, "n_layer": 14, "n_head": 16},
    "qwen3": {"hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 14, "num_attention_heads": 16,
              "num_key_value_heads": 8, "head_dim": 64},
}  # fmt: skip
"""About 200 million parameters each, 800 MiB in float32: 3 % are less than 64 MiB, so that the bound bites."""


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("truth")


@pytest.fixture(scope="module")
def system(shelf: Path) -> Iterator[Any]:
    with boot(drivers=["cpu0", "models"], home=shelf) as system:
        yield system


def measured(system: Any, name: str) -> dict[str, dict[str, int]]:
    """The rows of a model by use, when the driver has measured them."""
    figures = ("predicted", "ledger", "allocator", "driver")
    for _ in range(600):
        rows = [row for row in json.loads(system.read("/sys/memory")) if row["name"] == name]
        if any(row["allocator"] for row in rows):
            return {row["what"]: {figure: row[figure] for figure in figures} for row in rows}
        time.sleep(0.1)
    raise AssertionError(f"nothing was measured of {name}")


def agree(rows: Mapping[str, Mapping[str, int]]) -> None:
    lasting = [row for what, row in rows.items() if what != "workspace"]
    predicted, ledger, allocator, driver = (
        sum(row[figure] for row in lasting) for figure in ("predicted", "ledger", "allocator", "driver")
    )
    bound = max(0.03 * predicted, 64 * MIB)
    assert predicted > 0
    assert abs(ledger - predicted) <= bound, (rows, "the ledger and the plan")
    assert abs(allocator - predicted) <= bound, (rows, "the allocator and the plan")
    assert -bound <= predicted - driver <= bound + _untouched(rows), (rows, "the system and the plan")
    for figure in ("allocator", "driver"):
        assert rows["workspace"][figure] <= rows["workspace"]["predicted"] + bound


def _untouched(rows: Mapping[str, Mapping[str, int]]) -> int:
    """Pages of keys and values that no request has written yet are promised, and not there."""
    return max(0, rows["kv"]["allocator"] - rows["kv"]["driver"]) if "kv" in rows else 0


def loaded(system: Any, folder: Path, name: str, **options: Any) -> dict[str, dict[str, int]]:
    with system.load_model(folder, device="cpu0", name=name, **options) as model:
        model.infer([1, 2, 3], max_tokens=4, ignore_eos=True)
        rows = measured(system, name)
        model.unload()
    return rows


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
def test_ten_shapes(system: Any, shelf: Path, shape: str) -> None:
    agree(loaded(system, build(shelf / shape, shape), shape))


def test_a_shape(system: Any, shelf: Path) -> None:
    agree(loaded(system, build(shelf / "quick", "llama"), "quick"))


@pytest.mark.slow
@pytest.mark.parametrize("shape", REAL)
def test_real_shapes(system: Any, shelf: Path, shape: str) -> None:
    agree(loaded(system, build(shelf / f"real-{shape}", shape, **REAL[shape]), f"real-{shape}"))


@pytest.mark.slow
@pytest.mark.parametrize("quant", QUANTS)
def test_every_quantization(system: Any, shelf: Path, quant: str) -> None:
    folder = build(shelf / f"q-{quant}", "llama", **REAL["llama"])
    agree(loaded(system, folder, f"q-{quant}", quant=quant))


@pytest.mark.slow
@pytest.mark.parametrize("quant", SCHEMES)
def test_the_weights_of_every_scheme(system: Any, shelf: Path, quant: str) -> None:
    """On a small model 64 MiB are more than all of it: here the weights are within 3 %."""
    rows = loaded(system, build(shelf / "wide", "llama", **WIDE), f"s-{quant}", quant=quant)
    agree(rows)
    weights = rows["weights"]
    assert weights["allocator"] == pytest.approx(weights["predicted"], rel=0.03), rows
