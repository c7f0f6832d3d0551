"""What is learned from an example."""

from __future__ import annotations

from llmos.drivers.tuning.data.example import IGNORED, Example


def test_the_first_token_and_ignored_ones_are_not_learned() -> None:
    assert Example((1, 2, 3, 4), (1, IGNORED, 3, 4)).learned == 2
    assert len(Example((1, 2, 3, 4), (1, 2, 3, 4))) == 4


def test_labels_of_a_row_are_no_tokens() -> None:
    assert Example((1, 2), (0, 1), whole=True).learned == 0


def test_where_labels_are_at_their_own_tokens_the_first_counts_too() -> None:
    assert Example((1, 2, 3), (1, IGNORED, 3), aligned=True).learned == 2
