"""Searching the registry, through the kernel, over many models; importing one beside `cp`."""

from __future__ import annotations

import json
import random
import tempfile
import time
from pathlib import Path

import registry_import
from measure import Row, quantile

from llmos.userland import boot
from llmos.userland.objects import System

MODELS = 10_000
SEARCHES = 100
REPEATS = 3
AIM_MS = 20.0
ORGANISATIONS = 400
ARCHITECTURES = ("Llama", "Qwen3", "Gemma3", "Mistral", "Bert", "Whisper", "Phi3", "Falcon")
TASKS = ("text-generation", "fill-mask", "feature-extraction", "automatic-speech-recognition", "text-classification")
LICENCES = ("apache-2.0", "mit", "gemma", "llama3.1", "cc-by-4.0")
LANGUAGES = ("en", "de", "fr", "zh", "es", "ja", "pt", "ar")
COMMON = (
    "small fast chat assistant instruct code reasoning vision audio base tuned distilled multilingual medical fox wolf"
)
"""Words of names and tags."""
RARE = 20_000
"""Other words that cards are made of; the lower their number, the more often, as in a language."""


def rows(models: int = MODELS) -> list[Row]:
    return [*search_rows(models), *registry_import.rows()]


def search_rows(models: int = MODELS) -> list[Row]:
    """The first index, and the time of a search: words, words with filters, filters alone, and after a change."""
    dice = random.Random(7)
    with tempfile.TemporaryDirectory(prefix="llmos-bench-") as name:
        folder = Path(name)
        for number in range(models):
            write(folder / "home" / "models", number, dice)
        with boot(drivers=["models"], home=str(folder / "home")) as system:
            began = time.perf_counter()
            system.search("/models", "fox")
            first = time.perf_counter() - began
            samples: dict[str, list[list[float]]] = {what: [] for what in ("words", "filters", "all", "changed")}
            for _ in range(REPEATS):
                for what, each in samples.items():
                    each.append(sorted(search(system, what, folder, dice) for _ in range(SEARCHES)))
    figures = {what: (quantile(each, 0.5) * 1e3, quantile(each, 0.95) * 1e3) for what, each in samples.items()}
    called = {
        "words": "words", "filters": "words and filters", "all": "filters alone, by size",
        "changed": "words, a model changed before each",
    }  # fmt: skip
    found = [Row(f"first index of {models} models", first, None, "s", None, "", None)]
    for what, (middle, high) in figures.items():
        note = f"p50 {middle:.1f} ms"
        found.append(Row(f"search: {called[what]}, p95", high, None, "ms", None, f"{AIM_MS:g} ms", high < AIM_MS, note))
    return found


def search(system: System, what: str, folder: Path, dice: random.Random) -> float:
    """Seconds of one search."""
    words = " ".join([dice.choice(COMMON.split()), *(word(dice) for _ in range(dice.randrange(3)))])
    filters: dict[str, object] = {}
    if what in ("filters", "all"):
        filters = {"task": dice.choice(TASKS), "language": dice.choice(LANGUAGES), "max_bytes": 8 << 30}
    if what == "all":
        words, filters = "", {**filters, "sort": "size"}
    if what == "changed":
        model = f"org{dice.randrange(ORGANISATIONS)}"
        changed = next((folder / "home" / "models" / model).iterdir())
        system.control(system.find("mount", "/models").handle, "tag", name=f"{model}/{changed.name}", tag="seen")
    began = time.perf_counter()
    system.search("/models", words, filters=filters, limit=8)
    return time.perf_counter() - began


def write(root: Path, number: int, dice: random.Random) -> None:
    """A version as a commit leaves it, but for its weights, which a search never looks at."""
    words = dice.sample(COMMON.split(), 4)
    folder = root / f"org{number % ORGANISATIONS}" / f"{words[0]}-{words[1]}-{number}" / "versions" / "1"
    folder.mkdir(parents=True)
    architecture = dice.choice(ARCHITECTURES)
    size = dice.randrange(1 << 28, 1 << 36)
    manifest = {
        "format": 1, "name": f"{folder.parts[-4]}/{folder.parts[-3]}", "version": "1", "order": 1, "previous": "",
        "architecture": f"{architecture}ForCausalLM", "tasks": [dice.choice(TASKS)], "parameters": size // 2,
        "dtype": "bfloat16", "context": 4096, "licence": dice.choice(LICENCES), "tags": words,
        "languages": dice.sample(LANGUAGES, 2), "created": f"2026-{number % 12 + 1:02}-01T00:00:00Z",
        "files": [{"name": "config.json", "bytes": 2, "sha256": f"{number:064x}"}],
    }  # fmt: skip
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "config.json").write_text("{}")
    text = " ".join(word(dice) for _ in range(200))
    (folder / "README.md").write_text(f"---\nlicense: {manifest['licence']}\n---\n# {folder.parts[-3]}\n{text}\n")


def word(dice: random.Random) -> str:
    """One of many words, by Zipf's law."""
    return f"w{int(RARE ** dice.random())}x"
