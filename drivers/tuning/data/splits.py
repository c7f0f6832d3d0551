"""Which rows are held out: by what they say, so that it stays when rows come, go or change places."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any


def digest_of(record: Mapping[str, Any]) -> bytes:
    """16 bytes that are the same for the same fields, in whatever order they stand."""
    text = json.dumps(record, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def joined(*digests: str) -> str:
    """One digest of several data sets."""
    return hashlib.blake2b("".join(digests).encode(), digest_size=16).hexdigest()


def held_out(digest: bytes, fraction: float) -> bool:
    """Whether a row is held out when `fraction` of all are. What a smaller fraction holds out, a larger one does too,
    and equal rows are always on the same side."""
    return int.from_bytes(digest[:8], "big") < fraction * 2**64
