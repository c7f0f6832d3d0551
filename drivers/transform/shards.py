"""Weights of a stored model, read one tensor at a time and written shard by shard.

Files are mapped and their pages given back as they are left, so that a transformation holds the tensors that it works
on and one shard, whatever the size of the model. The layout is that of Hugging Face: `model.safetensors`, or shards and
an index of them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from llmos.syscalls.errors import BadModel, NotSupported

from ..contract import ModelSource, ProgressSink
from ..engine import bottleneck, checkpoint, learned
from ..engine.checkpoint import CONFIG, INDEX, Weights
from ..engine.mapped import FilePages
from ..filesystems.copying import copy
from ..formats.shards import Shards as Shards

LEFT_BEHIND = (INDEX, "manifest.json", "quantization.json", "pruning.json")
"""What describes the weights of the source, beside its weight files."""


class Tensors:
    """The tensors of a model by name, in the order of their files. Use `opened`.

    Attributes:
        source: whose they are.
        headers: dtype (as safetensors calls it) and shape of each, without reading it.
    """

    def __init__(self, source: ModelSource, headers: Mapping[str, Mapping[str, Any]], files: Mapping[str, Any]) -> None:
        self.source, self.headers = source, headers
        self._files = files
        self._pages = FilePages([file.path for file in source.files])

    def __contains__(self, name: object) -> bool:
        return name in self.headers

    def __iter__(self) -> Iterator[str]:
        return iter(self.headers)

    def __len__(self) -> int:
        return len(self.headers)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor, without reading it."""
        return tuple(self.headers[name]["shape"])

    def floating(self, name: str) -> bool:
        """Whether its values are floating-point numbers."""
        return str(self.headers[name]["dtype"]).startswith(("F", "BF"))

    def weight_of(self, layer: str) -> str:
        """The weight of a layer, given as its path in the model, of which checkpoints may leave out the beginning.

        Empty where there is none.
        """
        name = f"{layer}.weight"
        while name not in self and name.count(".") > 1:
            name = name.partition(".")[2]
        return name if name in self else ""

    def read(self, name: str) -> torch.Tensor:
        """A tensor, mapped: not to be written to. Raises BadModel: the model has none of this name."""
        if name not in self.headers:
            file = next(iter(self._files))
            raise BadModel(f"{self.source.path} has no tensor {name}", file=file, why=f"has no tensor {name}")
        self.trim()
        tensor: torch.Tensor = self._files[self.headers[name]["file"]].get_tensor(name)
        return tensor

    def trim(self) -> None:
        """Give back pages that were read, and what the heap has free between things that stay, once they are many."""
        self._pages.trim()


@contextmanager
def opened(source: ModelSource, weights: Weights | None = None) -> Iterator[Tensors]:
    """The tensors of a located model; of an adapter with `weights` (`checkpoint.check_file`).

    Raises:
        BadModel: a weight file is missing or damaged.
        NotSupported: it has more beside its weights, which what is made of them would lose.
    """
    for file in source.files:
        if file.name in (bottleneck.WEIGHTS, learned.FILE):
            why = f"{file.name} lies beside its weights, and would be lost"
            said = f"{source.path} cannot be transformed: {why}; transform its base, and tune that"
            raise NotSupported(said, why=why)
    weights = weights or checkpoint.check_weights(source)
    with checkpoint.folder_of(source) as folder, ExitStack() as stack:
        headers: dict[str, Mapping[str, Any]] = {}
        files: dict[str, Any] = {}
        for name in weights.files:
            entry = checkpoint.find(source, name)
            assert entry is not None
            found = checkpoint.read_header(entry)
            for tensor in sorted(found, key=lambda key: found[key]["data_offsets"][0]):
                headers[tensor] = {**found[tensor], "file": name}
            files[name] = stack.enter_context(safe_open(folder / name, framework="pt"))
        yield Tensors(source, headers, files)


def copy_rest(source: ModelSource, folder: Path, progress: ProgressSink, without: Sequence[str] = ()) -> None:
    """Copy what lies beside the weights: configuration, tokenizer, card, licence. Raises OSError."""
    for file in source.files:
        if file.name in (*LEFT_BEHIND, *without) or file.name.endswith(".safetensors"):
            continue
        progress(0, 0, "files", f"copy {file.name}")
        descriptor = os.open(file.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            copy(descriptor, folder / file.name, lambda _count: None)
        finally:
            os.close(descriptor)


def config_of(source: ModelSource) -> dict[str, Any]:
    """The configuration of a located model. Raises BadModel."""
    return checkpoint.read_json(source, CONFIG)


def write_config(folder: Path, config: Mapping[str, Any]) -> None:
    """Put a configuration into the folder of a result. Raises OSError."""
    (folder / CONFIG).write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n")
