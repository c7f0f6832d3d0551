"""Commands that make a model of others: quantize, prune, merge, export. Each is a task of the kernel."""

from __future__ import annotations

import re
from argparse import Namespace
from collections.abc import Sequence
from typing import Any

import msgspec

from llmos.syscalls.errors import BadArgument
from llmos.syscalls.types import TransformRecipe
from llmos.userland.options import quant_named
from llmos.userland.places import host_path

from .. import text
from ..cli import Cli
from ..report import read_report, told
from .registry import read_at, run_job, written_at

OF_FOUR = re.compile(r"([123]):4")


def quantize(cli: Cli, values: Namespace) -> int:
    """A report says what it cost: bytes, and how much worse each layer and the whole became."""
    quant = quant_named(values.to or "w8")
    fields: dict[str, Any] = {"shift": True} if values.shift else {}
    fields |= {name: int(given) for name in ("group", "head") if (given := getattr(values, name)) is not None}
    if values.method:
        fields["method"] = values.method
    if values.budget is not None:
        fields["byte_budget"] = text.bytes_of(values.budget)
    quant = msgspec.structs.replace(quant, **fields, keep=values.keep or [])
    recipe = TransformRecipe(kind="quantize", quant=quant, options=_options(values))
    return _make(cli, values, [values.model, *_texts(cli, values)], recipe, "quantizing")


def prune(cli: Cli, values: Namespace) -> int:
    """Weights by their size or by what they do to text, or whole heads and layers."""
    options: dict[str, Any] = _options(values)
    sparsity = 0.5 if values.sparsity is None and not values.layer else 0.0
    if values.sparsity is not None and (found := OF_FOUR.fullmatch(values.sparsity)):
        options["pattern"], sparsity = values.sparsity, int(found[1]) / 4
    elif values.sparsity is not None:
        sparsity = _number("sparsity", values.sparsity)
    if values.layer:
        options["layers"] = values.layer
    method = values.method or ("layers" if values.layer else "magnitude")
    recipe = TransformRecipe(kind="prune", method=method, sparsity=sparsity, options=options)
    return _make(cli, values, [values.model, *_texts(cli, values)], recipe, "pruning")


def merge(cli: Cli, values: Namespace) -> int:
    """The base, if there is one, is the first source."""
    *models, values.out = values.models
    if not models:
        raise BadArgument("merge takes models, and last where the result goes", name="models", want="two paths or more")
    values.model = models[0]
    options = _options(values)
    given = {"density": values.density, "seed": values.seed, "normalize": False if values.as_given else None}
    options |= {name: value for name, value in given.items() if value is not None}
    weights = [_number("weights", part) for part in values.weights.split(",")] if values.weights else []
    recipe = TransformRecipe(kind="merge", method=values.method or "linear", weights=weights, options=options)
    sources = [values.base, *models] if values.base else models
    if recipe.method in ("ties", "dare") and not values.base:
        want = "--base MODEL, the model that the others were tuned from"
        raise BadArgument(f"{recipe.method} merges what was learnt since a base: add {want}", name="base", want=want)
    return _make(cli, values, [cli.stored(source) for source in sources], recipe, "merging")


def export(cli: Cli, values: Namespace) -> int:
    """A .gguf file, or a folder with one."""
    recipe = TransformRecipe(kind="export", format=values.format or "gguf", options=_options(values))
    return _make(cli, values, [values.model], recipe, "exporting")


def _make(cli: Cli, values: Namespace, sources: Sequence[str], recipe: TransformRecipe, doing: str) -> int:
    """Start the task and tell what came of it."""
    first, *others = sources
    sources = [cli.stored(first), *others]
    away = host_path(values.out) is not None
    out, shown = written_at(cli, values.out) if away else (cli.stored(values.out), "")

    def tell(value: dict[str, Any]) -> None:
        version = "" if away or not value.get("version") else f"@{value['version']}"
        told(cli.out, read_report(cli.system, f"{value['path']}{version}"))

    title = f"{doing} {values.model}"
    return run_job(cli, sources, out, recipe, title, detach=values.detach, shown=shown, tell=tell)


def _texts(cli: Cli, values: Namespace) -> list[str]:
    return [read_at(cli, path) for path in values.text or ()]


def _options(values: Namespace) -> dict[str, Any]:
    return {"replace": True} if values.force else {}


def _number(name: str, given: str) -> float:
    try:
        return float(given)
    except ValueError:
        want = "a number such as 0.5, or 2:4" if name == "sparsity" else "numbers such as 0.7,0.3"
        raise BadArgument(f"{name}: {given!r} is no number; write {want}", name=name, got=given, want=want) from None
