"""The option `orthogonal`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..checked import Checked

FIELDS: Mapping[str, str] = {"to": "names of loaded adapters", "weight": "above 0"}


@dataclass(frozen=True)
class Orthogonal:
    """Adapters of the same base that were learned before, and whose directions are left to them (O-LoRA).

    Attributes:
        to: their names.
        weight: of the term.
    """

    to: tuple[str, ...]
    weight: float = 0.5

    @classmethod
    def of(cls, options: Checked) -> Orthogonal | None:
        """What the options of a recipe say; None for nothing. Raises BadArgument."""
        if "orthogonal" not in options:
            return None
        given = options.within_map("orthogonal", FIELDS)
        return cls(tuple(given.texts("to")), given.more("weight", 0.5))
