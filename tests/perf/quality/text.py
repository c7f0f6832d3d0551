"""Text that is at hand wherever Python is: the sources of its standard library, and what is kept of them for measuring.

One file in twenty, chosen by a checksum of its name, is never trained on.
"""

from __future__ import annotations

import random
import sysconfig
import zlib
from pathlib import Path

LEFT_OUT = {"test", "tests", "idlelib", "turtledemo", "site-packages", "dist-packages", "encodings", "__pycache__"}
LONGEST = 200_000
"""Bytes; longer files are tables."""
KEPT_ONE_IN = 20
HELD_OUT_CHARACTERS = 400_000


def sources(held_out: bool) -> list[str]:
    """Texts of the standard library, those to train on or those held out, in a fixed order."""
    root = Path(sysconfig.get_path("stdlib"))
    found = []
    for path in sorted(root.rglob("*.py")):
        name = path.relative_to(root)
        if LEFT_OUT.isdisjoint(name.parts) and path.stat().st_size <= LONGEST and _kept(name) == held_out:
            found.append(path.read_text(encoding="utf-8", errors="replace"))
    random.Random(0).shuffle(found)
    return found


def held_out() -> str:
    """One text to learn from and to measure on."""
    return "\n\n".join(sources(held_out=True))[:HELD_OUT_CHARACTERS]


def _kept(name: Path) -> bool:
    return zlib.crc32(name.as_posix().encode()) % KEPT_ONE_IN == 0
