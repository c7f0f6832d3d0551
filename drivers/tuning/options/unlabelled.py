"""The option `unlabelled`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from llmos.syscalls.errors import BadArgument

from ..checked import Checked

FIELDS: Mapping[str, str] = {
    "files": "names of files of the data, with * and ?", "weight": "of what is learned from them; 0 for nothing",
    "confidence": "how likely a class has to be, 0 to below 1", "soft": "true or false",
    "sharpen": "what scores are divided by", "rows": "in a batch; 0 for batch_size",
    "choose": "how many rows to name for labelling", "doubt": "entropy, margin, least",
}  # fmt: skip

MOST = 100
"""Rows that a report names for labelling."""

DOUBTS = ("entropy", "margin", "least")
"""How doubt is told: how even the classes are; how near the second is to the first; how unlikely the first is."""


@dataclass(frozen=True)
class Unlabelled:
    """Rows without labels.

    Attributes:
        files: names of the files of the data that have them, with `*` and `?`.
        weight: of their loss beside that of rows with labels; 0 learns nothing from them.
        confidence: a row counts whose likeliest class is at least so likely to the model.
        soft: learn all probabilities as they are (consistency, UDA), not the likeliest class (pseudo-labels).
        sharpen: scores are divided by it for what is to be learned: below 1 makes it surer.
        rows: how many beside each batch; 0 for as many as `batch_size`.
        choose: so many rows that are worth a label next are named in the report (active learning).
        doubt: how the model's doubt is told.
    """

    files: tuple[str, ...]
    weight: float = 1.0
    confidence: float = 0.95
    soft: bool = False
    sharpen: float = 1.0
    rows: int = 0
    choose: int = 0
    doubt: str = "entropy"

    @classmethod
    def of(cls, options: Checked) -> Unlabelled | None:
        """What the options of a recipe say; None for nothing. Raises BadArgument."""
        if "unlabelled" not in options:
            return None
        given = options.within_map("unlabelled", FIELDS)
        if given.whole("choose", 0) > MOST:
            want = f"at most {MOST}"
            said = f"choose is {given.whole('choose', 0)}, a report names {want}; label these, and tune again"
            raise BadArgument(said, name="choose", got=str(given.whole("choose", 0)), want=want)
        return cls(
            tuple(given.texts("files")), given.within("weight", 1.0), given.share("confidence", 0.95),
            given.flag("soft", False), given.more("sharpen", 1.0), given.whole("rows", 0), given.whole("choose", 0),
            given.choice("doubt", "entropy", DOUBTS),
        )  # fmt: skip
