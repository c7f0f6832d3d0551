"""Names of classes become numbers, which the head bounds."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from llmos.drivers.engine import kinds
from llmos.drivers.tuning.data.labels import Labels, seen_in
from llmos.syscalls.errors import BadArgument
from training_data import base, recipe


def labels(seen: Sequence[str | int], head: Sequence[str] = (), asked: Sequence[str] = ()) -> Labels:
    made = recipe("classification", options={"labels": list(asked)})
    return Labels(made, base(kind=kinds.SEQUENCE, labels=head), seen)


@pytest.mark.parametrize(
    ("seen", "head", "asked", "names"),
    [
        (["no", "yes", "no"], (), (), ("no", "yes")),
        (["no", "yes"], ("LABEL_0", "LABEL_1", "LABEL_2"), (), ("no", "yes")),
        (["no"], ("yes", "no"), (), ("yes", "no")),
        (["no"], ("yes", "no"), ("no", "yes"), ("no", "yes")),
        ([0, 2], (), (), ("0", "1", "2")),
        (["0", "3"], (), (), ("0", "1", "2", "3")),
        ([0, 1], ("LABEL_0", "LABEL_1", "LABEL_2"), (), ("0", "1", "2")),
        ([], (), (), ()),
    ],
)
def test_where_names_come_from(
    seen: list[str | int], head: tuple[str, ...], asked: tuple[str, ...], names: tuple[str, ...]
) -> None:
    assert labels(seen, head, asked).names == names


def test_classes_go_by_name_or_number() -> None:
    made = labels([], asked=("bad", "good", "7"))
    assert [made.number(label, "f:1") for label in ("good", 1, "1", "7", 2)] == [1, 1, 1, 2, 2]


@pytest.mark.parametrize(
    ("label", "said"),
    [(2, "f:9: the label is out of range 0 to 1 .2."), (-1, "out of range 0 to 1"), ("5", "out of range"),
     ("bda", "there is no such label .bda.; labels are bad, good")],
)  # fmt: skip
def test_a_label_that_is_none_is_told_with_its_place(label: str | int, said: str) -> None:
    with pytest.raises(BadArgument, match=said) as caught:
        labels([], asked=("bad", "good")).number(label, "f:9")
    assert caught.value.got == "f:9"


def test_more_classes_than_outputs_are_refused() -> None:
    with pytest.raises(BadArgument, match="there are 3 labels, the head of tiny has 2 outputs"):
        labels(["a", "b", "c"], head=("LABEL_0", "LABEL_1"))


def test_what_is_learned_of_a_row() -> None:
    made = labels([], asked=("a", "b", "c"))
    assert made.of_row({"label": "c"}, "f:1") == (2,)
    assert made.of_row({"labels": ["c", 0]}, "f:1") == (1.0, 0.0, 1.0)
    assert made.of_row({"labels": []}, "f:1") == (0.0, 0.0, 0.0)
    assert made.of_row({"score": "0.25"}, "f:1") == (0.25,)


def test_a_head_with_more_outputs_learns_that_the_others_do_not_apply() -> None:
    """Their number is that of the head: the loss compares each."""
    made = labels(["a", "b"], head=("LABEL_0", "LABEL_1", "LABEL_2"))
    assert made.of_row({"labels": ["b"]}, "f:1") == (0.0, 1.0, 0.0)


def test_labels_are_found_whatever_they_are_called() -> None:
    records = [{"label": 0}, {"labels": ["a"]}, {"tags": ["B", "O"]}, {"text": "x"}, {"labels": []}]
    assert list(seen_in(records)) == [0, "a", "B", "O"]
