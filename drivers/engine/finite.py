"""Damaged weights: values that are not finite, found once, when a model is loaded."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import safe_open

from llmos.syscalls.errors import BadModel

from ..contract import ProgressSink
from .checkpoint import CONFIG, Weights
from .quantized.stored import PARTS

SCAN_ITEMS = 1 << 24
"""Elements looked at between two signs of life."""

PROGRESS_CALLS = 200


def check_finite(folder: Path, weights: Weights, progress: ProgressSink) -> None:
    """Read every weight once, reporting bytes. Raises BadModel for a file with NaN or infinity."""
    done = shown = 0
    for name in weights.files:
        with safe_open(folder / name, framework="pt") as file:
            for key in file.keys():  # noqa: SIM118 (not a mapping)
                for part in file.get_tensor(key).flatten().split(SCAN_ITEMS):
                    if _is_wide(part) and not is_finite(part):
                        why = f"{key} has values that are not finite"
                        raise BadModel(f"{name}: {why}; the file is damaged", file=name, why=why)
                    done += part.nbytes
                    if done - shown > weights.bytes // PROGRESS_CALLS:
                        shown = done
                        progress(done, weights.bytes, "bytes", "read")


def check_moved(module: torch.nn.Module, weights: Weights) -> None:
    """The same for weights that are on a device: it is asked once about all. Raises BadModel."""
    scales = {name: part for name, part in module.state_dict().items() if name.rpartition(".")[2] in PARTS}
    every = {**dict(module.named_parameters()), **scales}
    named = [(name, part) for name, part in every.items() if _is_wide(part) and part.numel()]
    extremes = [torch.stack(torch.aminmax(part)).float() for _, part in named]
    fine = torch.stack(extremes).isfinite().all(dim=1).tolist() if extremes else []
    for (name, _), finite in zip(named, fine, strict=True):
        if not finite:
            file, why = weights.file_of(name), f"{name} has values that are not finite"
            raise BadModel(f"{file}: {why}; the file is damaged", file=file, why=why)


def check_answer(path: str, architecture: str, answer: torch.Tensor) -> None:
    """The same for what a model answers. Raises BadModel."""
    if not is_finite(answer):
        why = f"{architecture} answers with values that are not finite"
        raise BadModel(f"{CONFIG} of {path}: {why}", file=CONFIG, why=why)


def _is_wide(part: torch.Tensor) -> bool:
    return part.is_floating_point() and part.element_size() > 1


def is_finite(part: torch.Tensor) -> bool:
    """The extremes show infinity, and NaN, which they pass on; a mask of the whole tensor would be far slower."""
    return part.numel() == 0 or all(bool(extreme.isfinite()) for extreme in torch.aminmax(part))
