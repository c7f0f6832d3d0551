"""Entities of tagged words: spans, of which each is right as a whole or not at all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

Span = tuple[str, int, int]
"""The kind of an entity, its first word and the one behind its last."""

_PREFIXES, _INSIDE, _LAST = frozenset("BIELSU"), frozenset("IEL"), frozenset("ELSU")
_OUTSIDE = ("O", "")


def spans(tags: Sequence[str]) -> list[Span]:
    """The entities of a sentence, read as the scorer of CoNLL-2000 does.

    Tags are `B-KIND` for the first word of an entity, `I-KIND` for one that goes on, and `O` for none (IOB2); also
    `E-` or `L-` for its last word and `S-` or `U-` for its only one (IOBES, BILOU). An `I-` where nothing of its kind
    goes on begins an entity (IOB1). A tag without a prefix is a kind whose neighbours belong together.
    """
    found: list[Span] = []
    kind, first = "", -1
    before = "O"
    for place, tag in enumerate([*tags, "O"]):
        prefix, here = _parts(tag)
        goes_on = first >= 0 and prefix in _INSIDE and here == kind and before not in _LAST
        if first >= 0 and not goes_on:
            found.append((kind, first, place))
            first = -1
        if first < 0 and prefix != "O":
            kind, first = here, place
        before = prefix
    return found


def _parts(tag: str) -> tuple[str, str]:
    """Prefix and kind; a tag without a prefix is inside its kind."""
    if tag in _OUTSIDE:
        return "O", ""
    prefix, _, kind = tag.partition("-")
    return (prefix, kind) if prefix in _PREFIXES else ("I", tag)


def entities(said: Sequence[Sequence[str]], wanted: Sequence[Sequence[str]]) -> dict[str, float]:
    """Precision, recall and F1 of the entities of all sentences, and the mean F1 of their kinds.

    Figures are 0 where nothing could be found, and 1 where nothing was to be found and nothing was.

    Raises:
        ValueError: sentences of different length or number.
    """
    right, told, there = Counter[str](), Counter[str](), Counter[str]()
    for one, other in zip(said, wanted, strict=True):
        if len(one) != len(other):
            raise ValueError(f"a sentence has {len(other)} words, {len(one)} tags are said of it")
        mine, theirs = set(spans(one)), set(spans(other))
        right.update(kind for kind, _, _ in mine & theirs)
        told.update(kind for kind, _, _ in mine)
        there.update(kind for kind, _, _ in theirs)
    if not told and not there:
        return {"entity_precision": 1.0, "entity_recall": 1.0, "entity_f1": 1.0, "entity_f1_macro": 1.0}
    kinds = sorted(told.keys() | there.keys())
    each = [_f1(right[kind], told[kind], there[kind]) for kind in kinds]
    return {
        "entity_precision": right.total() / max(1, told.total()),
        "entity_recall": right.total() / max(1, there.total()),
        "entity_f1": _f1(right.total(), told.total(), there.total()), "entity_f1_macro": sum(each) / len(each),
    }  # fmt: skip


def _f1(right: int, said: int, wanted: int) -> float:
    return 2 * right / (said + wanted)
