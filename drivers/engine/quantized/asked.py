"""What a model is to be like: as its folder says it is stored, or as it is to be quantized while it is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmos.syscalls.errors import NotSupported

from ...contract import ModelSource
from ...formats.foreign import METHODS
from ...quant.rule import Wish
from ..place import Place
from . import folder
from .folder import AUTO as AUTO
from .folder import Quantized
from .library import stored
from .quantizing import wish_of


def quantized_asked(
    source: ModelSource, raw: Mapping[str, Any], quant: Mapping[str, Any] | None
) -> tuple[Quantized | None, Wish | None]:
    """How weights are stored by us, and how they are to be quantized. Raises BadModel, BadArgument, NotSupported."""
    wish = None if quant is None else wish_of(quant, source.path)
    value = raw.get(folder.KEY)
    if value is None:
        return None, wish
    if wish is not None:
        why = "its weights are quantized already"
        raise NotSupported(f"{source.path}: {why}; load it without quant", why=why)
    method = str(value.get("quant_method", "unknown")) if isinstance(value, dict) else "unknown"
    if method == folder.METHOD:
        return folder.read(source.path, value), None
    if method in METHODS:
        return None, None
    why = f"the weights are quantized by {method}; read are {', '.join(METHODS)}"
    raise NotSupported(f"{source.path}: {why}; load the original weights", why=why)


def refuse_plugged(source: ModelSource, quant: Mapping[str, Any] | None) -> None:
    """Raises NotSupported where a model of a package's own class is to be quantized."""
    if quant is not None:
        why = "its class comes from a package, which alone knows its layers"
        raise NotSupported(f"{source.path} is not quantized: {why}; load it without quant", why=why)


def settle(module: Any, activations: str, place: Place) -> None:
    """Say to quantized layers what their inputs are rounded to; for `auto` the place does."""
    for _, layer in stored(module):
        layer.activations = place.activations(layer.scheme.kind) if activations == AUTO else activations
