"""The option `teacher`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmos.syscalls.errors import BadArgument

from ..checked import Checked

FIELDS: Mapping[str, str] = {
    "model": "the name of a loaded model", "share": "of the loss, above 0 to 1", "temperature": "above 0",
    "layers": "pairs of a layer and one of the teacher", "hidden": "weight of the distance of states",
}  # fmt: skip


@dataclass(frozen=True)
class Teacher:
    """A model that serves on the same device, of which another learns.

    Attributes:
        model: its name.
        share: of the loss: how far the scores are from the teacher's; the rest is the loss of the labels.
        temperature: scores of both are divided by it.
        layers: pairs of a layer of the model and one of the teacher whose states are to be alike, as
            `output_hidden_states` counts them: 0 are the embeddings, -1 the last.
        hidden: weight of the distance of these states, beside the loss.
    """

    model: str
    share: float = 0.5
    temperature: float = 2.0
    layers: tuple[tuple[int, int], ...] = ()
    hidden: float = 1.0

    @classmethod
    def of(cls, options: Checked) -> Teacher | None:
        """What the options of a recipe say; None for nothing. Raises BadArgument."""
        if "teacher" not in options:
            return None
        given = options.within_map("teacher", FIELDS)
        if not given.text("model", ""):
            want = "the name of a model that is loaded on the same device"
            raise BadArgument(f"teacher needs a model: {want}", name="teacher", want=want)
        share = given.within("share", 0.5, above=0.0)
        if share > 1:
            want = "a number above 0 to 1"
            raise BadArgument(f"share is {share:g}, expected {want}", name="share", got=f"{share:g}", want=want)
        return cls(
            given.text("model", ""), share, given.more("temperature", 2.0), _pairs(given), given.within("hidden", 1.0)
        )


def _pairs(options: Checked) -> tuple[tuple[int, int], ...]:
    given = options.value("layers") if "layers" in options else ()
    fits = isinstance(given, Sequence) and not isinstance(given, str) and all(map(_pair, given))
    if not fits:
        want = "pairs of two layers, such as [[-1, -1]]"
        raise BadArgument(f"layers is {given!r}, expected {want}", name="layers", got=repr(given)[:80], want=want)
    return tuple((one, other) for one, other in given)


def _pair(value: Any) -> bool:
    whole = isinstance(value, Sequence) and len(value) == 2
    return whole and all(isinstance(each, int) and not isinstance(each, bool) for each in value)
