"""What quantizing does to the perplexity of the bundled model and of that of `make quality-model`, as a table.

Each row is a run of `transform_model`'s quantize, whose report is read. Texts are those held out from training.

    python tests/perf/quality/rows.py [bundled trained] [--only AWQ]
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "docs/examples/train-tiny"))

from corpus import docstrings
from tiny_models import silent, source_of

from llmos.drivers.transform import quantize

ROOT = Path(__file__).resolve().parents[3]
TRAINED = ROOT / "build/quality"
W4, WHOLE = {"width": 4, "group": 128}, {"width": 8, "group": 0}
ROWS: Mapping[str, Mapping[str, Any]] = {
    "4 bits group 128, nearest with the scales of least error": W4,
    "4 bits group 128, GPTQ": {**W4, "method": "gptq"},
    "4 bits group 128, AWQ": {**W4, "method": "awq"},
    "8 bits group 128, nearest": {"width": 8, "group": 128},
    "8 bits, one scale for each output, nearest": WHOLE,
    "8 bits, one scale for each output, SmoothQuant, activations of 8 bits": {
        **WHOLE, "activations": "int8", "method": "smoothquant",
    },
    "fp8 weights": {**WHOLE, "kind": "float"},
}  # fmt: skip


def models(names: list[str]) -> dict[str, tuple[Path, str]]:
    """Folder and text of each."""
    found = {}
    if "trained" in names:
        found["trained"] = TRAINED / "model", (TRAINED / "held_out.txt").read_text(encoding="utf-8")
    if "bundled" in names:
        found["bundled"] = ROOT / "drivers/filesystems/models/bundled/tiny", "\n\n".join(docstrings(held_out=True))
    return found


def measured(model: Path, text: Path, quant: Mapping[str, Any]) -> dict[str, Any]:
    """The report of a model quantized so."""
    with tempfile.TemporaryDirectory() as folder:
        sources, recipe = [source_of(model), source_of(text)], {"kind": "quantize", "quant": quant}
        quantize.run(sources, recipe, Path(folder), silent)
        report: dict[str, Any] = json.loads((Path(folder) / quantize.REPORT).read_text(encoding="utf-8"))
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=["trained", "bundled"])
    parser.add_argument("--only", default="", help="rows with this in their name")
    options = parser.parse_args()
    for name, (model, text) in models(options.models).items():
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "text.txt").write_text(text, encoding="utf-8")
            for row, quant in ROWS.items():
                if options.only in row:
                    report = measured(model, Path(folder), quant)
                    before, after = report["perplexity_before"], report["perplexity_after"]
                    bits, tokens = report["bits_per_weight"], report["tokens"]
                    change = f"{after:.3f} | {100 * (after / before - 1):+.2f} %"
                    print(f"| {row} | {name}: {before:.3f} | {change} | {bits:.2f} bits, {tokens} tokens |", flush=True)


if __name__ == "__main__":
    main()
