"""What a transformation has written about its result, in sentences and a table."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from llmos.syscalls.errors import NotFound, NotDirectory

from . import text
from .out import Out

if TYPE_CHECKING:
    from llmos.userland.objects import System

FILES = ("quantization.json", "pruning.json")
SHOWN = 5
"""Layers that are listed: those that became worst."""
NAMED = 3
"""Kinds of tensors that are named of those that stayed wide."""
NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")


def read_report(system: System, path: str) -> dict[str, Any]:
    """The report beside a model's weights; empty where there is none."""
    for name in FILES:
        with suppress(NotFound, NotDirectory, ValueError):
            found = json.loads(system.read(f"{path.rstrip('/')}/{name}"))
            if isinstance(found, dict):
                return found
    return {}


def told(out: Out, report: Mapping[str, Any]) -> None:
    """Print a report: bytes, what stayed wide, perplexity, the layers that became worst."""
    before, after = report.get("bytes_before"), report.get("bytes_after")
    if before and after:
        bits = report.get("bits_per_weight")
        each = f", {bits:.2f} bits a weight" if bits else ""
        out.line(f"weights: {text.size(before)} before, {text.size(after)} now ({before / after:.2f} times less){each}")
    if wide := report.get("wide"):
        out.line(f"as they were: {text.size(sum(wide.values()))}, {_alike(wide)}")
    before, after = report.get("perplexity_before"), report.get("perplexity_after")
    if before and after:
        on = f" on {report['tokens']} tokens" if report.get("tokens") else ""
        of = f" of {report['text']}" if report.get("text") else ""
        out.line(f"perplexity: {before:.4g} before, {after:.4g} now ({100 * (after / before - 1):+.2f} %){on}{of}")
    modules = report.get("modules") or {}
    rows = sorted(modules.items(), key=lambda item: item[1].get("error") or 0.0, reverse=True)
    if rows:
        out.line(f"the layers that changed most, of {len(rows)}:")
        columns = ("LAYER", "AS", ">ERROR", ">BYTES")
        out.table(columns, [_row(name, about) for name, about in rows[:SHOWN]])


def _alike(wide: Mapping[str, int]) -> str:
    """What takes most, with N for the numbers of layers and experts."""
    sizes: Counter[str] = Counter()
    for name, size in wide.items():
        sizes[NUMBER.sub("N", name.removesuffix(".weight"))] += size
    names = [name for name, _ in sizes.most_common(NAMED)]
    return ", ".join([*names, *(["others"] if len(sizes) > NAMED else [])])


def _row(name: str, about: Mapping[str, Any]) -> tuple[str, str, str, str]:
    how = about.get("scheme") or (f"{about['sparsity']:.0%} are 0" if "sparsity" in about else "")
    error, size = about.get("error"), about.get("bytes")
    return name, how if isinstance(how, str) else text.fields(how), _percent(error), text.size(size) if size else ""


def _percent(error: Any) -> str:
    return f"{error:.2%}" if isinstance(error, int | float) else ""
