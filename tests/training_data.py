"""Files of training data, bases with real tokenizers, and data sets made of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tiny_models import byte_level

from llmos.drivers.contract import SourceFile
from llmos.drivers.engine import kinds
from llmos.drivers.tuning.data.base import Base
from llmos.drivers.tuning.data.dataset import Dataset, encode, finished
from llmos.drivers.tuning.data.source import DataSource, Row
from llmos.drivers.tuning.recipe import Recipe

CONTEXT = 64


def jsonl(rows: Sequence[Any]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def located(folder: Path, files: Mapping[str, str | bytes]) -> list[SourceFile]:
    """Write files, and locate them as a file system would."""
    found = []
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        found.append(SourceFile(name, path, path.stat().st_size))
    return found


def source(folder: Path, files: Mapping[str, str | bytes]) -> DataSource:
    return DataSource("/data/here", located(folder, files))


def recipe(objective: str = "causal-lm", **fields: Any) -> Recipe:
    return Recipe.of({"method": "lora", "objective": objective} | fields)


def base(tokenizer: Any = None, kind: kinds.Kind = kinds.CAUSAL, context: int = CONTEXT, labels: Sequence[str] = (),
         ) -> Base:  # fmt: skip
    return Base("tiny", kind, tokenizer or byte_level(), context, tuple(labels))


def row(values: Mapping[str, Any], line: int = 1) -> Row:
    return Row(values, "rows.jsonl", line)


def dataset(folder: Path, rows: Sequence[Any], made: Recipe, of: Base) -> Dataset:
    return finished(encode(source(folder, {"rows.jsonl": jsonl(rows)}), made, of))
