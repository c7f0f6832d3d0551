"""The option `adversarial`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..checked import Checked

FIELDS: Mapping[str, str] = {
    "method": "fgm, pgd", "size": "the norm by which embeddings are moved", "pace": "of one move", "times": "moves",
}  # fmt: skip


@dataclass(frozen=True)
class Adversarial:
    """A pass on embeddings that are moved against the model.

    Attributes:
        method: fgm for one move, pgd for several.
        size: the norm, for each row, by which all embeddings of the row are moved at most.
        pace: that of one move of pgd.
        times: how many moves pgd makes.
    """

    method: str = "fgm"
    size: float = 1.0
    pace: float = 0.3
    times: int = 3

    @classmethod
    def of(cls, options: Checked) -> Adversarial | None:
        """What the options of a recipe say; None for nothing. Raises BadArgument."""
        if "adversarial" not in options:
            return None
        given = options.within_map("adversarial", FIELDS)
        return cls(
            given.choice("method", "fgm", ("fgm", "pgd")), given.more("size", 1.0), given.more("pace", 0.3),
            given.whole("times", 3, 1),
        )  # fmt: skip
