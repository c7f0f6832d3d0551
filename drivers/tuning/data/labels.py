"""Names of classes and their numbers."""

from __future__ import annotations

from collections.abc import Iterable

from llmos.syscalls.errors import BadArgument

from ..recipe import Recipe
from .base import Base
from .schema import Record
from .source import refused


class Labels:
    """The classes of a run: those that the recipe names, else those of the base's head, else those that were seen."""

    def __init__(self, recipe: Recipe, base: Base, seen: Iterable[str | int]) -> None:
        """
        Args:
            recipe: its `labels`, in order.
            base: its head, whose outputs bound them.
            seen: every label of the data.

        Raises:
            BadArgument: there are more classes than the head has outputs.
        """
        texts, numbers = set[str](), [-1]
        for label in seen:
            numbers.append(label) if isinstance(label, int) else texts.add(label)
        if recipe.labels or base.named:
            self.names = recipe.labels or base.labels
        elif texts and not all(text.isdecimal() for text in texts):
            self.names = tuple(sorted(texts))
        else:
            count = max(len(base.labels), 0 if base.labels else 1 + max([*numbers, *map(int, texts)]))
            self.names = tuple(str(number) for number in range(count))
        if base.labels and len(self.names) > len(base.labels):
            want = f"at most {len(base.labels)}, or a base whose num_labels is {len(self.names)}"
            said = f"there are {len(self.names)} labels, the head of {base.name} has {len(base.labels)} outputs: {want}"
            raise BadArgument(said, name="labels", got=", ".join(self.names)[:200], want=want)
        self.outputs = len(base.labels) or len(self.names)
        self._numbers = {name: number for number, name in enumerate(self.names)}

    def number(self, label: str | int, place: str) -> int:
        """The number of a class, by name or number. Raises BadArgument when there is no such class."""
        if isinstance(label, str) and label in self._numbers:
            return self._numbers[label]
        if isinstance(label, int) or label.isdecimal():
            if 0 <= int(label) < len(self.names):
                return int(label)
            raise refused(place, f"the label is out of range 0 to {len(self.names) - 1}", "mend it, or labels", label)
        shown = ", ".join(self.names[:20])
        raise refused(place, "there is no such label", f"labels are {shown}; name more in the option labels", label)

    def of_row(self, record: Record, place: str) -> tuple[float, ...]:
        """What is learned of a row of texts: a class, 0.0 or 1.0 for each output of the head, or a score."""
        if "score" in record:
            return (float(record["score"]),)
        if "label" in record:
            return (self.number(record["label"], place),)
        those = {self.number(label, place) for label in record["labels"]}
        return tuple(float(number in those) for number in range(self.outputs))


def seen_in(records: Iterable[Record]) -> Iterable[str | int]:
    """Every label of rows, whatever their schema calls it."""
    for record in records:
        yield from record.get("labels") or record.get("tags") or ([record["label"]] if "label" in record else [])
