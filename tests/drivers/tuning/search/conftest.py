"""Small searches on a model that serves."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny_models
from tuning_runs import Serve

from llmos.drivers.contract import TuneJob
from llmos.drivers.tuning.search.preparing import PreparedSearch, prepare_search

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
Prepare = Callable[..., PreparedSearch]
"""The fixture `prepare`: a prepared search by its map and other fields of the recipe; `name` for folders of its own."""

RECIPE: dict[str, Any] = {
    "method": "lora", "rank": 4, "batch_size": 4, "max_steps": 9, "max_length": 32, "eval_fraction": 0.2,
    "target_modules": ["q_proj", "v_proj"],
}  # fmt: skip


@pytest.fixture
def prepare(serve: Serve, tmp_path: Path) -> Prepare:
    resident, _ = serve("llama", dtype="float32")
    data = tmp_path / "data"
    data.mkdir()
    rows = [{"prompt": f"{WORDS[n % 10]} {n}", "completion": f" {WORDS[(n + 1) % 10]}"} for n in range(40)]
    (data / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def prepared(name: str = "one", search: Any = None, **fields: Any) -> PreparedSearch:
        asked = {"space": {"learning_rate": [1e-9, 1e-2]}, "trials": 4, **(search or {})}
        recipe = {**RECIPE, **fields, "search": asked}
        folder = tmp_path / name
        job = TuneJob("t1", "m", recipe, tiny_models.source_of(data), folder / "out", folder / "keep", version="v1")
        return prepare_search(job, resident)

    return prepared
