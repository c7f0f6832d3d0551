"""Turn a finished run into the bundled model: `python export.py RUN MODEL [--count 1000] [--version v1]`.

RUN is the folder train.py wrote. MODEL receives the weights in bfloat16, the tokenizer, the training log with its loss
curve, and a manifest with the numbers evaluate.py measures on exactly these weights.
"""

import argparse
import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from evaluate import evaluate
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

LIMIT = 12 * 2**20  # bytes of the whole folder
KEPT_POINTS = 400  # of the loss curve
NOT_LISTED = ("manifest.json", "README.md")
BANDS = (("commands", 1, "#1f6feb"), ("docstrings", 2, "#bf5700"))


def export_weights(run: Path, folder: Path) -> None:
    """Weights in bfloat16, configuration and tokenizer, in Hugging Face layout."""
    model = AutoModelForCausalLM.from_pretrained(run / "fp32", dtype=torch.bfloat16)
    tokenizer = AutoTokenizer.from_pretrained(run / "fp32")
    end, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    model.generation_config = GenerationConfig(
        do_sample=False, max_new_tokens=96, bos_token_id=end, eos_token_id=end, pad_token_id=pad
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder, save_jinja_files=False)


def smooth(losses: list[list[float]]) -> list[list[float]]:
    """Means over equal stretches of steps: (last step, loss on commands, loss on docstrings)."""
    size = max(1, len(losses) // KEPT_POINTS)
    stretches = [losses[start : start + size] for start in range(0, len(losses), size)]
    return [
        [stretch[-1][0], *(round(sum(row[column] for row in stretch) / len(stretch), 4) for column in (1, 2))]
        for stretch in stretches
    ]


def draw_curve(losses: list[list[float]]) -> str:
    """The loss curve as SVG: loss in nats per token over steps."""
    width, height, left, bottom = 640, 320, 48, 36
    steps, top = losses[-1][0], 7.0

    def point(step: float, loss: float) -> str:
        across = left + (width - left - 12) * step / steps
        return f"{across:.1f},{(height - bottom) * (1 - min(loss, top) / top) + 8:.1f}"

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height + 12}" font-family="sans-serif" '
        f'font-size="12"><rect width="100%" height="100%" fill="white"/>'
    ]
    for level in range(int(top) + 1):
        x, y = point(0, level).split(",")
        parts.append(f'<path d="M{x},{y}H{width - 12}" stroke="#ddd"/>')
        parts.append(f'<text x="{left - 16}" y="{float(y) + 4}">{level}</text>')
    for place, (name, column, colour) in enumerate(BANDS):
        line = " ".join(point(row[0], row[column]) for row in losses)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        parts.append(f'<text x="{width - 140}" y="{30 + 18 * place}" fill="{colour}">{name}</text>')
    parts.append(f'<text x="{left}" y="{height}">loss (nats per token) over {steps} steps</text></svg>')
    return "\n".join(parts) + "\n"


def manifest_of(folder: Path, version: str, metrics: dict[str, Any]) -> dict[str, Any]:
    """The manifest: what the folder holds, byte for byte, and what was measured."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    model = AutoModelForCausalLM.from_pretrained(folder)
    paths = sorted(path for path in folder.iterdir() if path.is_file() and path.name not in NOT_LISTED)
    return {
        "format": 1,
        "name": "tiny",
        "version": version,
        "architecture": config["architectures"][0],
        "tasks": ["text-generation"],
        "parameters": model.num_parameters(),
        "dtype": "bfloat16",
        "quant": None,
        "context": config["max_position_embeddings"],
        "languages": ["en"],
        "files": [
            {"name": path.name, "bytes": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
            for path in paths
        ],
        "tokenizer": "tokenizer.json",
        "chat_template": True,
        "licence": "Apache-2.0",
        "origin": "trained from scratch by docs/examples/train-tiny",
        "parents": [],
        "metrics": metrics,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def export(run: Path, folder: Path, version: str, count: int) -> None:
    """Write the whole folder; raises SystemExit when it is too large."""
    folder.mkdir(parents=True, exist_ok=True)
    export_weights(run, folder)
    log = json.loads((run / "training_log.json").read_text(encoding="utf-8"))
    log["losses"] = smooth(log["losses"])
    (folder / "training_log.json").write_text(json.dumps(log) + "\n", encoding="utf-8")
    (folder / "loss.svg").write_text(draw_curve(log["losses"]), encoding="utf-8")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    metrics, _ = evaluate(model, AutoTokenizer.from_pretrained(folder), count)
    manifest = manifest_of(folder, version, metrics)
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    size = sum(path.stat().st_size for path in folder.iterdir())
    print(json.dumps(metrics, indent=2), f"\n{size:,} bytes")
    if size > LIMIT:
        raise SystemExit(f"the folder has {size} bytes; at most {LIMIT} are allowed. Train a smaller model.")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("--version", default="v1")
    parser.add_argument("--count", type=int, default=1000)
    options = parser.parse_args()
    export(options.run, options.model, options.version, options.count)
