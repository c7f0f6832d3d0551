"""Checkpoints of a training run: a folder each, whole or not there, without pickle."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from llmos.syscalls.errors import BadState

_TENSORS = "state.safetensors"
_FACTS = "state.json"
_FORMAT = 1
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Saved:
    """What a run goes on from after `step` updates: tensors by name, the rest as JSON has it."""

    step: int
    tensors: Mapping[str, Tensor]
    facts: Mapping[str, Any] = field(default_factory=dict)

    def part(self, prefix: str) -> dict[str, Tensor]:
        """The tensors `PREFIX/NAME` by NAME."""
        start = f"{prefix}/"
        return {name[len(start) :]: tensor for name, tensor in self.tensors.items() if name.startswith(start)}


class Checkpoints:
    """The checkpoints in a folder, the `keep` newest of one run.

    `identity` says whose they are (hashes of recipe, data and base): what another run left is no start for this one.
    A checkpoint is written into a folder of another name, to the disk, and then renamed: a crash at any point leaves
    those that were there. Nothing is cleaned up on the way out, since after a crash nothing would be either; the
    next write removes what an unfinished one left.
    """

    def __init__(self, folder: Path, identity: Mapping[str, str], keep: int = 2) -> None:
        self._folder = folder
        self._identity = dict(identity)
        self._keep = keep

    def write(self, saved: Saved) -> Path:
        """Its folder, once it is on the disk. Raises OSError; older checkpoints are then still there."""
        self._folder.mkdir(parents=True, exist_ok=True)
        for left in self._folder.glob("*.part"):
            shutil.rmtree(left)
        whole = self._folder / _name(saved.step)
        if whole.exists() and _facts(whole) is not None:  # a run comes to the same step with the same bits
            return whole
        part = self._folder / f"{_name(saved.step)}.part"
        part.mkdir()
        tensors = {name: tensor.detach().contiguous() for name, tensor in saved.tensors.items()}
        safetensors.torch.save_file(tensors, part / _TENSORS)
        text = json.dumps(
            {"step": saved.step, "identity": self._identity, "tensors": _hash(part / _TENSORS), "facts": saved.facts}
        )
        sealed = {"format": _FORMAT, "sha256": hashlib.sha256(text.encode()).hexdigest(), "text": text}
        (part / _FACTS).write_text(json.dumps(sealed))
        for name in (_TENSORS, _FACTS, "."):
            _sync(part / name)
        if whole.exists():  # damaged: the run went back to an older one
            shutil.rmtree(whole)
        part.rename(whole)
        _sync(self._folder)
        for old in self._all()[self._keep :]:
            shutil.rmtree(old)
        return whole

    def newest(self) -> Saved | None:
        """The newest whole checkpoint, None where there is none. Raises BadState for one of another run."""
        for folder in self._all():
            facts = _facts(folder)
            if facts is None:
                continue
            if facts["identity"] != self._identity:
                differs = [key for key, value in self._identity.items() if facts["identity"].get(key) != value]
                raise BadState(
                    f"{folder.name} belongs to a run with another {', '.join(differs) or 'identity'}", state="foreign"
                )
            try:
                tensors = safetensors.torch.load_file(folder / _TENSORS)
            except (OSError, SafetensorError):
                continue
            return Saved(facts["step"], tensors, facts["facts"])
        return None

    def has(self, step: int) -> bool:
        """Whether the checkpoint of this step is there, whole."""
        return _facts(self._folder / _name(step)) is not None

    def _all(self) -> list[Path]:
        """Folders of checkpoints, the newest first."""
        return sorted(_folders(self._folder), reverse=True)


def _folders(folder: Path) -> Iterator[Path]:
    return (path for path in folder.glob("step-*") if path.suffix != ".part")


def _name(step: int) -> str:
    return f"step-{step:09d}"


def _facts(folder: Path) -> dict[str, Any] | None:
    """What a checkpoint says of itself; None where it is not as it was written."""
    try:
        sealed = json.loads((folder / _FACTS).read_text())
        text = sealed["text"]
        if sealed["format"] != _FORMAT or sealed["sha256"] != hashlib.sha256(text.encode()).hexdigest():
            return None
        facts = dict(json.loads(text))
        return facts if facts["tensors"] == _hash(folder / _TENSORS) else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _hash(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _sync(path: Path) -> None:
    """Have the disk keep a file's content, or a folder's names."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
