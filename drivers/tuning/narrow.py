"""Bottleneck adapters in training (Houlsby et al. 2019, arXiv:1902.00751; Pfeiffer et al. 2020, arXiv:2005.00247)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from llmos.syscalls.errors import BadArgument

from ..engine import bottleneck, kinds
from ..engine.bottleneck import Bottlenecks, size_of
from ..engine.loader import Bundle
from . import whole
from .owning import HEADS
from .recipe import Recipe

OUTPUTS = (
    "o_proj", "out_proj", "c_proj", "down_proj", "fc2", "fc_out", "wo", "o", "dense_4h_to_h", "attention.dense",
    "self_attention.dense", "output.dense", "self_attn.dense",
)  # fmt: skip
"""What the last layers of attention and of what follows it are called; after both, as Houlsby has it. Pfeiffer has it
after the second alone: `target_modules` names those then."""


HEADS_OF_TOKENS = ("lm_head", "cls.", "pooler.", "embed_out")
"""What stands behind the layers of a model."""


def put(view: Any, kind: kinds.Kind, recipe: Recipe) -> None:
    """Put bottlenecks of float32 behind layers of a frozen view: only they move, beside a head of classes.

    Raises:
        BadArgument: none of the layers is there.
    """
    targets, size = recipe.target_modules or OUTPUTS, int(view.config.get_text_config().hidden_size)
    inside = tuple(f"{name}." for name in HEADS.get(kind, ())) + HEADS_OF_TOKENS
    named = [(path, part) for path, part in view.named_modules() if size_of(part) == size]
    layers = [path for path, _ in named if _ends(path, targets) and not path.startswith(inside)]
    if not layers:
        names = ", ".join(sorted({path.rpartition(".")[2] for path, _ in named}))
        got = ", ".join(targets)
        said = f"bottleneck finds no layers for {got}; layers that answer with {size} numbers here: {names}"
        raise BadArgument(said, name="target_modules", got=got, want=names)
    bottleneck.put(view, Bottlenecks(recipe.rank, recipe.activation, tuple(layers)), torch.float32)


def _ends(path: str, names: tuple[str, ...]) -> bool:
    return any(path == name or path.endswith(f".{name}") for name in names)


def store(module: Any, recipe: Recipe, bundle: Bundle, folder: Path, labels: Sequence[str]) -> None:
    """Write the base, with its bottlenecks beside it, so that the engine serves both. Raises OSError."""
    whole.export(module, bundle, folder, labels)
    bottleneck.write(module, recipe.rank, recipe.activation, folder, bundle.about.dtype)
