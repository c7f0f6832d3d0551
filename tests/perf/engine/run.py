"""All engine benches of one run: figures, limits, aims, and the raw numbers that are kept."""

from __future__ import annotations

import importlib.metadata
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from measure import Row, show

from . import aims, alone
from .among_peers import among_peers
from .cells import Cell, lines
from .crew import say
from .options import Options
from .probe import Probe
from .process import PeerFailed

AMONG = ("requests", "arrivals", "prefill")
OF_A_MODEL = {
    "prefix": alone.prefix, "gap": alone.gap, "adapters": alone.many_adapters, "overhead": alone.overhead,
}  # fmt: skip
OF_NONE = {"encoder": alone.mixed_texts, "attention": alone.decode_attention}
SUITES = (*AMONG, *OF_A_MODEL, *OF_NONE)


def run(options: Options, facts: Mapping[str, Any], keep: Path | None) -> list[Row]:
    """Measure, print, and keep the raw figures in the file `keep`: after each suite, so that none are lost."""
    probe = Probe(options.threads, options.sizes.stream_probe)
    probe.measure()
    cells: list[Cell] = []
    about: dict[str, Any] = {}
    for model in options.sizes.models:
        if any(suite in options.suites for suite in AMONG):
            found, about[model] = among_peers(options, model, probe)
            cells += found
            _save(keep, facts, options, probe, cells, about)
        for name, suite in OF_A_MODEL.items():
            if name in options.suites:
                cells += _tried(name, lambda s=suite, m=model: s(options, m, probe))
                _save(keep, facts, options, probe, cells, about)
    for name, other in OF_NONE.items():
        if name in options.suites:
            cells += _tried(name, lambda s=other: s(options, probe))
            _save(keep, facts, options, probe, cells, about)
    return _report(cells, probe, about)


def _tried(name: str, suite: Any) -> list[Cell]:
    """A suite that ours fails in is missing in the results, which says enough; the others go on."""
    try:
        found: list[Cell] = suite()
    except PeerFailed as error:
        say(f"{name} failed: {error}")
        return []
    return found


def _report(cells: Sequence[Cell], probe: Probe, about: Mapping[str, Any]) -> list[Row]:
    rates = probe.rates
    for cell in cells:
        cell.settle(rates)
    print("\n".join(lines(cells)))
    print(f"\nread bandwidth {rates.bandwidth / 1e9:.1f} GB/s; GFLOP/s of products by rows:", end=" ")
    print(", ".join(f"{rows}: {rate / 1e9:.0f}" for rows, rate in rates.products.items()))
    for model, facts in about.items():
        print(f"{model}: first tokens as generate: {facts['tokens as generate']}; left out: {facts['left out']}")
    rows = aims.rows(cells, rates)
    show("engine: aims", rows)
    return rows


def _save(
    keep: Path | None, facts: Mapping[str, Any], options: Options, probe: Probe, cells: Sequence[Cell],
    about: Mapping[str, Any],
) -> None:  # fmt: skip
    if keep is None:
        return
    rates = probe.rates
    for cell in cells:
        cell.settle(rates)
    names = ("torch", "transformers", "numpy")
    raw = {
        "machine": {**facts, **{name: importlib.metadata.version(name) for name in names}},
        "options": {**asdict(options), "folder": ""},
        "bandwidth": rates.bandwidth, "products": {str(rows): rate for rows, rate in rates.products.items()},
        "probe": dict(probe.samples), "about": about, "cells": [cell.raw() for cell in cells],
        "rows": [asdict(row) for row in aims.rows(cells, rates)],
    }  # fmt: skip
    keep.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=keep.parent, delete=False) as file:
        json.dump(raw, file, indent=1)
    Path(file.name).chmod(0o644)
    Path(file.name).replace(keep)
