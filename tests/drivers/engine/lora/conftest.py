"""Adapter folders for the llama that tests of the engine share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from lora_folders import Make, base_of, save_adapter
from slow_cases import slow_but


@pytest.fixture
def make(llama: Path, tmp_path: Path) -> Make:
    """Saves a random adapter, of the llama unless a base is given."""

    def make_adapter(name: str = "lora", seed: int = 0, base: Any = None, **options: Any) -> Path:
        return save_adapter(base_of(llama) if base is None else base, tmp_path / name, seed, **options)

    return make_adapter


@pytest.fixture(params=slow_but(["P"], ["P", "G"]))
def rung(request: pytest.FixtureRequest) -> str:
    """Adapters are tried on pages in every run, on the general rung in the slow one."""
    return str(request.param)
