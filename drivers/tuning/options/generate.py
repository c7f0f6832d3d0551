"""The option `generate`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from llmos.syscalls.errors import BadArgument

from ..checked import Checked

FIELDS: Mapping[str, str] = {"tokens": "of an answer at most", "rows": "how many held-out rows are answered"}

MOST = 1000
"""Rows that are answered in one look."""


@dataclass(frozen=True)
class Generate:
    """Held-out rows whose answers are written before and after training.

    Attributes:
        tokens: of an answer at most.
        rows: so many of the held-out rows, the first ones.
    """

    tokens: int = 64
    rows: int = 50

    @classmethod
    def of(cls, options: Checked) -> Generate | None:
        """What the options of a recipe say: true, or a map; None for no answers. Raises BadArgument."""
        if "generate" not in options:
            return None
        asked = options.value("generate")
        if isinstance(asked, bool):
            return cls() if asked else None
        if not isinstance(asked, Mapping):
            want = "true, or a map such as {tokens = 64, rows = 50}"
            raise BadArgument(f"generate is {asked!r}, expected {want}", name="generate", got=str(asked), want=want)
        given = options.within_map("generate", FIELDS)
        rows = given.whole("rows", cls.rows, 1)
        if rows > MOST:
            want = f"at most {MOST}"
            said = f"rows is {rows}; {want} are answered, before training and after it"
            raise BadArgument(said, name="rows", got=str(rows), want=want)
        return cls(given.whole("tokens", cls.tokens, 1), rows)
