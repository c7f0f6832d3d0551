"""Random words: the published vectors, and the same words for numbers and for tensors of them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llmos.drivers.ops.philox import MASK, philox

Words = tuple[int, int, int, int]
WORD = st.integers(0, MASK)


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((MASK, MASK, MASK, MASK), (MASK, MASK), (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)  # fmt: skip
def test_the_vectors_of_random123(
    counter: Words, key: tuple[int, int], words: Words
) -> None:
    assert philox(counter, key) == words


@given(st.lists(st.tuples(*[WORD] * 6), min_size=1, max_size=5))
def test_tensors_give_the_words_that_numbers_give(rows: list[tuple[int, ...]]) -> None:
    a, b, c, d, low, high = torch.tensor(rows).unbind(-1)
    found = torch.stack(philox((a, b, c, d), (low, high)), dim=-1)
    assert found.tolist() == [list(philox((a, b, c, d), (low, high))) for a, b, c, d, low, high in rows]
