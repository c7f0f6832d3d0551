"""A stored model with numbers of 4 or 8 bits in its linear layers, and a report of what that did to it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llmos.syscalls.errors import NotSupported

from ..contract import ModelSource, ProgressSink
from ..engine.loader import Bundle
from ..engine.quantized.folder import KEY
from ..engine.quantized.quantizing import chosen
from ..ops.quantized import Scheme
from ..quant.rule import Wish
from . import shards
from .kinds import options_of
from .layerwise import NEAREST, Layerwise
from .observing import loaded, measured
from .quality import Text, given_text, own_text, perplexity
from .writing import Writing

REPORT = "quantization.json"
METRICS = ("perplexity_before", "perplexity_after", "bits_per_weight", "bytes_before", "bytes_after")


def run(
    sources: Sequence[ModelSource], recipe: Mapping[str, Any], folder: Path, progress: ProgressSink
) -> Mapping[str, Any]:
    """Quantize `sources[0]`; the others are text that it learns from and is measured on, else it writes its own.

    Raises:
        BadArgument: a wish that cannot be met, text that is none.
        NotSupported: it is quantized already, or writes no text and the method needs one.
        BadModel, OSError. See `kinds.Run`.
    """
    options_of(recipe, {})
    source, wish = sources[0], Wish.of(recipe.get("quant") or {})
    if shards.config_of(source).get(KEY):
        why = "it is quantized already"
        raise NotSupported(f"{source.path} is not quantized again: {why}; quantize what it was made from", why=why)
    with loaded(source, progress) as bundle:
        text = _text(bundle, sources[1:], wish, source.path, progress)
        before = None if text is None else perplexity(bundle.module, text.measure, progress, "measure the original")
        report: dict[str, Any] = {"method": wish.method, "activations": wish.activations}
        report |= _quantized(source, bundle, wish, text, folder, progress)
    del bundle  # before the result is loaded
    report["perplexity_before"] = before
    if text is not None:
        report |= {"text": text.origin, "tokens": text.measure.numel(), "tokens_learned_from": text.learn.numel()}
        report["perplexity_after"] = measured(source, folder, text, progress)
    (folder / REPORT).write_text(json.dumps(report, indent=2) + "\n")
    return {"quant": wish.short, "metrics": {name: report[name] for name in METRICS if report.get(name) is not None}}


def _text(
    bundle: Bundle, given: Sequence[ModelSource], wish: Wish, path: str, progress: ProgressSink
) -> Text | None:  # fmt: skip
    """What to learn from and to measure on; None for models that write no text."""
    about = bundle.about
    if about.causal and bundle.tokenizer is not None and given:
        return given_text(bundle.tokenizer, given, about.context)
    if about.causal:
        return own_text(bundle.module, about.context, progress)
    if given or wish.method != NEAREST:
        why = f"{about.architecture} writes no text"
        raise NotSupported(f"{path}: nothing is learnt from text: {why}; use the method {NEAREST}", why=why)
    return None


def _quantized(
    source: ModelSource, bundle: Bundle, wish: Wish, text: Text | None, folder: Path, progress: ProgressSink
) -> dict[str, Any]:
    """Write the quantized model; what became of its layers."""
    with shards.opened(source) as tensors:
        writing = Writing(folder, tensors, bundle.module)
        asked = chosen(bundle.module, wish)
        plan = {name: scheme for name, scheme in asked.items() if writing.stored(name)}
        size = sum(tensors.read(name).nbytes for name in tensors)
        work = Layerwise(bundle.module, plan, writing, wish.method, progress)
        pieces = None if text is None else text.learn
        if wish.byte_budget is not None:
            others = size - sum(writing.bytes_of(name) for name in plan)
            work.fit(wish.byte_budget - others, pieces)
        work.run(pieces)
        writing.close(wish.activations, progress)
    modules = {
        name: {"scheme": said(writing.schemes[name]), "bytes": work.sizes[name], "error": error}
        for name, error in work.errors.items()
    }
    return {
        "modules": modules, "kept": sorted(set(asked) - set(modules)), "folded": work.folded,
        "wide": writing.wide,
        "bytes_before": size, "bytes_after": writing.bytes,
        "bits_per_weight": 8 * sum(work.sizes.values()) / max(1, work.weights),
    }  # fmt: skip


def said(scheme: Scheme) -> str:
    """For people: such as int4 group 128."""
    group = f" group {scheme.group}" if scheme.group else ""
    return f"{scheme.kind}{scheme.width}{group}{' shift' if scheme.shift else ''}"
