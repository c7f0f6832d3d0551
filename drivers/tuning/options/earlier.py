"""The option `earlier`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..checked import Checked

FIELDS: Mapping[str, str] = {
    "files": "names of files of the data, with * and ?", "share": "of old rows among those that are trained on",
    "keep": "how many old rows are used; 0 for all", "ewc": "weight of what holds weights where they were; 0 for none",
    "rows": "old rows that say which weights matter",
}  # fmt: skip


@dataclass(frozen=True)
class Earlier:
    """Rows that the base has learned before, and is not to forget.

    Attributes:
        files: names of the files of the data that have them, with `*` and `?`.
        share: of all rows that are trained on, those that are old ones (replay).
        keep: so many old rows are used at most, chosen by what they say; 0 for all.
        ewc: weight of the term that holds weights near where they were, each as much as it matters to old rows
            (elastic weight consolidation, arXiv:1612.00796); 0 for none.
        rows: old rows from which that is found out.
    """

    files: tuple[str, ...]
    share: float = 0.0
    keep: int = 0
    ewc: float = 0.0
    rows: int = 64

    @classmethod
    def of(cls, options: Checked) -> Earlier | None:
        """What the options of a recipe say; None for nothing. Raises BadArgument."""
        if "earlier" not in options:
            return None
        given = options.within_map("earlier", FIELDS)
        return cls(
            tuple(given.texts("files")), given.share("share", 0.0), given.whole("keep", 0), given.within("ewc", 0.0),
            given.whole("rows", 64, 1),
        )  # fmt: skip
