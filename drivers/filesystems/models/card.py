"""A model's README.md: its front matter (who may use it, for what, made from what) and its text.

The front matter is the part of YAML that model cards use: texts, and lists of texts, one per line or in brackets
(huggingface.co/docs/hub/model-cards). Anything deeper is left out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

README = "README.md"
MAX_READ = 64 << 10
"""Bytes of a README that are looked at."""
FENCE = "---"
_KEY = re.compile(r"([A-Za-z_][\w-]*):(?:\s+(.*))?$")
_ITEM = re.compile(r"\s*-\s+(.*)$")
_HOW = frozenset({"adapter", "merge", "quantized", "finetune"})
_PLAIN_LICENCES = frozenset({"", "other", "unknown"})


@dataclass(frozen=True)
class Card:
    """`front` has a text or a list of texts for each key; `text` is what follows, as Markdown."""

    front: Mapping[str, str | list[str]] = field(default_factory=dict)
    text: str = ""

    def fields(self) -> dict[str, Any]:
        """What it says as fields of a manifest; only what is there."""
        licence = self._one("license")
        if licence in _PLAIN_LICENCES:
            licence = self._one("license_name") or licence
        found: dict[str, Any] = {
            "licence": licence,
            "languages": self._many("language") or self._many("languages"),
            "tags": self._many("tags"),
            "tasks": self._many("pipeline_tag"),
            "datasets": self._many("datasets"),
            "parents": [
                {"path": base, "version": "", "how": self._how()} for base in self._many("base_model")
            ],
        }  # fmt: skip
        return {name: value for name, value in found.items() if value}

    def _one(self, key: str) -> str:
        return next(iter(self._many(key)), "")

    def _many(self, key: str) -> list[str]:
        value = self.front.get(key, [])
        return [item for item in ([value] if isinstance(value, str) else value) if item]

    def _how(self) -> str:
        said = self._one("base_model_relation")
        return said if said in _HOW else "finetune"


def read_card(path: Path) -> Card:
    """The card in a file; an empty one when it cannot be read."""
    try:
        with path.open("rb") as file:
            return parse_card(file.read(MAX_READ).decode("utf-8", "replace"))
    except OSError:
        return Card()


def parse_card(text: str) -> Card:
    """Never raises: what is not understood is left out."""
    lines = text.removeprefix("\ufeff").splitlines()
    if not lines or lines[0].rstrip() != FENCE:
        return Card({}, text)
    ends = [place for place, line in enumerate(lines[1:], 1) if line.rstrip() in (FENCE, "...")]
    if not ends:
        return Card({}, text)
    return Card(_front(lines[1 : ends[0]]), "\n".join(lines[ends[0] + 1 :]).strip())


def _front(lines: list[str]) -> dict[str, str | list[str]]:
    found: dict[str, str | list[str]] = {}
    key = ""
    for line in lines:
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        starts = _KEY.match(line)
        if starts is not None:
            key = starts[1]
            found[key] = _value(starts[2] or "")
            continue
        item = _ITEM.match(line)
        listed = found.get(key)
        if item is None or listed is None:
            continue
        if listed == "":
            listed = found[key] = []
        if isinstance(listed, list) and not _KEY.match(item[1]):
            listed.append(_scalar(item[1]))
    return found


def _value(text: str) -> str | list[str]:
    bare = _scalar(text)
    if bare.startswith("[") and bare.endswith("]"):
        return [_scalar(item) for item in bare[1:-1].split(",") if item.strip()]
    return "" if bare in ("|", ">", "|-", ">-", "null", "~") or bare.startswith("{") else bare


def _scalar(text: str) -> str:
    text = text.strip()
    if len(text) > 1 and text[0] in "\"'" and text[-1] == text[0]:
        return text[1:-1]
    return text.partition(" #")[0].rstrip()
