"""Small real models on disk, and file systems over them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from llmos.drivers.filesystems.models.filesystem import ModelsFileSystem
from llmos.drivers.filesystems.models.plugin import open_source

MakeModel = Callable[..., Path]
OpenModels = Callable[..., ModelsFileSystem]

CONFIG = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "max_position_embeddings": 256}


def weights(tensors: Mapping[str, tuple[str, list[int], bytes]]) -> bytes:
    """A safetensors file."""
    header: dict[str, Any] = {}
    data = b""
    for name, (dtype, shape, content) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(content)]}
        data += content
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


WEIGHTS = weights({"w": ("F32", [2, 3], bytes(range(24))), "b": ("F32", [3], bytes(12))})


@pytest.fixture
def make_model() -> MakeModel:
    """`make_model(folder, **files)`: a plain Hugging Face folder; a file that is None is left out."""

    def make(folder: Path, files: Mapping[str, bytes | None] | None = None) -> Path:
        content = {
            "config.json": json.dumps(CONFIG).encode(),
            "model.safetensors": WEIGHTS,
            "tokenizer.json": b"{}",
            **(files or {}),
        }
        for name, data in content.items():
            if data is not None:
                path = folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
        return folder

    return make


@pytest.fixture
def models(tmp_path: Path) -> Iterator[OpenModels]:
    """`models(*folders)`: a file system over these, or over `tmp_path/models`; its cache is `tmp_path/cache`."""

    opened: list[ModelsFileSystem] = []

    def make(*folders: Path | str) -> ModelsFileSystem:
        (tmp_path / "models").mkdir(exist_ok=True)
        source = ":".join(str(folder) for folder in folders) or str(tmp_path / "models")
        system = open_source(source, {"cache": str(tmp_path / "cache")})
        assert isinstance(system, ModelsFileSystem)
        opened.append(system)
        return system

    yield make
    for system in opened:
        system.close()


@pytest.fixture
def commit(make_model: MakeModel) -> Callable[..., str]:
    """`commit(system, path, manifest, expected, files)`: stage a model and commit it."""

    def run(
        system: ModelsFileSystem,
        path: str,
        manifest: Mapping[str, Any] | None = None,
        expected: str | None = None,
        files: Mapping[str, bytes | None] | None = None,
    ) -> str:
        token, folder = system.stage(path)
        make_model(folder, files)
        try:
            return system.commit(token, manifest or {}, expected)
        finally:
            system.release(token)

    return run
