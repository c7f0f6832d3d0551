"""A device that computes nothing but knows for every place of a page what should stand there.

A cell stands for what a key or value depends on: the salt and all tokens up to its position. So a page that two rows
write, that is read before it was filled or after it was reused, or that came from another prefix, is seen at the next
look.
"""

from __future__ import annotations

from collections.abc import Sequence

from llmos.drivers.engine.steps import PAGE_TOKENS, Row

Cell = int
Pairs = Sequence[tuple[int, int]]


class FakePages:
    """Pages on the device and in host memory."""

    def __init__(self, pages: int, host_pages: int) -> None:
        self.device: list[list[Cell | None]] = [[None] * PAGE_TOKENS for _ in range(pages)]
        self.host: list[list[Cell | None]] = [[None] * PAGE_TOKENS for _ in range(host_pages)]

    def move(self, swap_out: Pairs, swap_in: Pairs, copies: Pairs) -> None:
        """Carry transfers out, each kind from its end: within a kind the order must not matter."""
        targets = [page for _, page in [*swap_in, *copies]]
        assert len(set(targets)) == len(targets), "a page is filled twice"
        assert len({page for _, page in swap_out}) == len(swap_out), "a host page is filled twice"
        assert not {page for page, _ in copies} & {page for _, page in copies}, "a copy reads what a copy writes"
        for pairs, source, target in (
            (swap_out, self.device, self.host),
            (swap_in, self.host, self.device),
            (copies, self.device, self.device),
        ):
            for old, new in reversed(pairs):
                target[new] = list(source[old])

    def write(self, row: Row, start: int, tokens: Sequence[int]) -> set[int]:
        """Compute all of `tokens` from `start` on into the row's pages; returns the pages written."""
        content = cells(row.salt, tokens)
        for at in range(start, len(tokens)):
            self.device[row.pages[at // PAGE_TOKENS]][at % PAGE_TOKENS] = content[at]
        return {row.pages[at // PAGE_TOKENS] for at in range(start, len(tokens))}

    def check(self, row: Row) -> None:
        """What counts as computed of a row is there."""
        memory, pages = (self.host, row.host_pages) if row.host_pages else (self.device, row.pages)
        check_cells(memory, pages, row.salt, row.tokens[: row.computed])

    def check_prefix(self, pages: Sequence[int], tokens: Sequence[int], salt: bytes) -> None:
        """These full pages hold the first of these tokens."""
        check_cells(self.device, pages, salt, tokens[: len(pages) * PAGE_TOKENS])


def cells(salt: bytes, tokens: Sequence[int]) -> list[Cell]:
    """What the positions of a sequence should hold."""
    found, before = [], hash(salt)
    for token in tokens:
        before = hash((before, token))
        found.append(before)
    return found


def check_cells(memory: Sequence[list[Cell | None]], pages: Sequence[int], salt: bytes, tokens: Sequence[int]) -> None:
    for at, content in enumerate(cells(salt, tokens)):
        found = memory[pages[at // PAGE_TOKENS]][at % PAGE_TOKENS]
        assert found == content, f"page {pages[at // PAGE_TOKENS]} does not hold token {at}"
