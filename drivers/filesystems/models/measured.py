"""What past runs showed of a model: speed, latency and quality by version and device.

One small file per model in the private part of the tree, because it cannot be derived again. Where the tree cannot be
written the index alone keeps it.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from llmos.syscalls.errors import BadArgument

from ..paths import PRIVATE, Parts, join, replace_file
from .index import Measures

FOLDER = "measured"
LONGEST = 200
"""Letters of a file's name."""
NAMES = ("tokens_per_s", "first_token_s", "load_s", "quality")
"""Generated tokens per second, seconds to the first token, seconds of a load, and quality from 0 to 1."""


def read_measures(root: Path, parts: Parts) -> Measures:
    """Values by version, device and name; none when nothing was measured or the file is damaged."""
    try:
        found = json.loads(measures_file(root, parts).read_bytes())
        return {
            (version, device, name): float(value)
            for version, devices in found.items()
            for device, values in devices.items()
            for name, value in values.items()
        }
    except (OSError, ValueError, AttributeError, TypeError):
        return {}


def write_measures(root: Path, parts: Parts, values: Measures) -> None:
    """Replace what is known of a model; to be called with the lock of the tree held. Raises OSError."""
    content: dict[str, dict[str, dict[str, float]]] = {}
    for (version, device, name), value in sorted(values.items()):
        content.setdefault(version, {}).setdefault(device, {})[name] = value
    file = measures_file(root, parts)
    file.parent.mkdir(parents=True, exist_ok=True)
    replace_file(file, json.dumps(content, indent=1).encode(), durable=False)


def drop_measures(root: Path, parts: Parts) -> None:
    """Forget what was measured of a model that is removed."""
    measures_file(root, parts).unlink(missing_ok=True)


def checked(values: Any) -> Mapping[str, float]:
    """Measured values by name. Raises BadArgument."""
    if not isinstance(values, Mapping) or not values:
        raise BadArgument("measure: values is not a map of numbers", name="values", want=", ".join(NAMES))
    for name, value in values.items():
        number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0
        if name not in NAMES or not number:
            text = f"measure: {name}={value!r} is not a number from 0 of {', '.join(NAMES)}"
            raise BadArgument(text, name="values", got=str(value)[:80], want=", ".join(NAMES))
    return {name: float(value) for name, value in values.items()}


def measures_file(root: Path, parts: Parts) -> Path:
    """Where the measures of a model are kept."""
    name = quote(join(parts)[1:], safe="")
    if len(name) > LONGEST:
        name = hashlib.sha256(name.encode()).hexdigest()
    return root / PRIVATE / FOLDER / f"{name}.json"
