"""The bundled model on text it has never seen, Python's language reference, with each method of LoRA's family."""

from __future__ import annotations

import pydoc_data.topics
import zlib
from pathlib import Path
from typing import Any

import common

METHODS = {"lora": 2e-3, "rslora": 1e-3, "dora": 2e-3, "adalora": 4e-3, "qlora": 2e-3, "ia3": 2e-2}
"""Each with its learning rate; all else is the same for all."""
PROMPT = "The for statement is used to"


def rows(held_out: bool) -> list[dict[str, str]]:
    """Paragraphs of topics; a topic is held out by a hash of its name, and what it shares with others with it."""
    sides: dict[bool, dict[str, None]] = {True: {}, False: {}}
    for name, text in sorted(pydoc_data.topics.topics.items()):
        parts = (part.strip() for part in text.split("\n\n"))
        sides[zlib.crc32(name.encode()) % 5 == 0] |= dict.fromkeys(part for part in parts if len(part) >= 40)
    return [{"text": part} for part in sides[held_out] if held_out or part not in sides[True]]


def run(system: Any, home: Path, quick: bool = False) -> str:
    """The table of methods, and what the base and the best of them go on with."""
    train, held_out = rows(False), rows(True)[:: 20 if quick else 4]
    data = common.write_rows(system, "/home/topics", train[:40] if quick else train, held_out)
    base = system.load_model("/models/tiny")
    small = system.load_model("/models/tiny", quant="w4", name="tiny-w4")
    recipe = {"max_steps": 2 if quick else 32, "batch_size": 4, "max_length": 256, "rank": 8, "schedule": "linear"}
    done = {}
    for method, rate in list(METHODS.items())[: 1 if quick else None]:
        model = small if method == "qlora" else base
        options = {"long": "split"}
        asked = {**recipe, "method": method, "learning_rate": rate, "options": options}
        done[method] = common.tune(system, model, asked, data, f"/models/topics-{method}")
    lines = [
        [method, *(common.interval(run.report["figures"]["perplexity"][stage], 2)
                   for stage in ("before", "after", "difference")),
         run.plan["trainable"] // 4, run.plan["total"] >> 20, f"{run.seconds:.0f}"]
        for method, run in done.items()
    ]  # fmt: skip
    heads = ("method", "perplexity before", "after", "difference", "trained", "MiB more", "seconds")
    best = min(done, key=lambda method: done[method].report["figures"]["perplexity"]["after"][0])
    written = beside(system, small if best == "qlora" else base, done[best].path, best)
    return f"{common.table(heads, lines)}\n\n{written}"


def beside(system: Any, base: Any, path: str, method: str) -> str:
    """What the base and the tuned model write after the same words."""
    adapter = {} if method in ("dora", "ia3") else {"base": base}
    said = base.infer(PROMPT, max_tokens=30).text
    with system.load_model(path, **adapter) as tuned:
        after = tuned.infer(PROMPT, max_tokens=30).text
    return f"`{PROMPT}`\n\n- base: `{said.strip()!r}`\n- {method}: `{after.strip()!r}`"
