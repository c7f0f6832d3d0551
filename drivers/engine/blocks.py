"""Which page holds what: reference counts, the prefix cache, copies on write, and the tier in host memory.

Pure: page numbers only. Transfers between pages are collected and handed out with `take_transfers`, once for each step;
whoever owns the memory carries them out before the step computes.

The prefix cache finds full pages by a key chained over all tokens before (as vLLM's automatic prefix caching does). A
page that no row holds stays findable until its place is needed; those unused for longest go first, and a page always
goes before the one that it continues.
"""

from __future__ import annotations

from array import array
from collections import Counter, OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b

from .steps import PAGE_TOKENS, Row

KEY_BYTES = 16


@dataclass(frozen=True)
class Transfers:
    """Pairs (from, to) of pages, to be carried out kind after kind in the order of the fields."""

    swap_out: Sequence[tuple[int, int]]
    swap_in: Sequence[tuple[int, int]]
    copies: Sequence[tuple[int, int]]


class BlockManager:
    """The pages of one model. `asked` and `found` count the tokens that rows looked for in the prefix cache.

    Without `caching` nothing is found: rows have pages in common only by `share` and `fork`.
    """

    def __init__(self, pages: int, host_pages: int = 0) -> None:
        """`pages` on the device, `host_pages` in host memory."""
        self.pages = pages
        self.host_pages = host_pages
        self.caching = True
        self.asked = self.found = 0
        self._holders = [0] * pages
        self._empty = list(range(pages - 1, -1, -1))
        self._unused: OrderedDict[int, None] = OrderedDict()
        """Pages of the prefix cache that no row holds, the next to go first."""
        self._page_of: dict[bytes, int] = {}
        self._key_of: dict[int, tuple[bytes, bytes]] = {}
        """Page to (key, salt): the prefix cache from the other side."""
        self._host_empty = list(range(host_pages - 1, -1, -1))
        self._host_resting: list[int] = []
        """Given up in this step, but still read by its transfers."""
        self._outgoing: list[tuple[int, int]] = []
        self._incoming: dict[int, int] = {}
        self._copied: dict[int, int] = {}
        """Transfers of this step; the last two by the page that is written."""
        self._pinned: list[int] = []
        """Pages that this step's copies read: nothing else may be brought into them before."""

    @property
    def used(self) -> int:
        """Pages that rows hold."""
        return self.pages - self.available

    @property
    def cached(self) -> int:
        """Pages that no row holds, with content that may be found again; they count as available."""
        return len(self._unused)

    @property
    def available(self) -> int:
        """Pages that can be had."""
        return len(self._empty) + len(self._unused)

    @property
    def host_used(self) -> int:
        """Pages of host memory in use."""
        return self.host_pages - len(self._host_empty)

    def match(self, tokens: Sequence[int], salt: bytes = b"") -> list[int]:
        """The pages of the longest cached prefix. It leaves at least one token, whose logits are to be computed."""
        return self.prefix(Row("", list(tokens), salt))

    def prefix(self, row: Row, limit: int | None = None) -> list[int]:
        """The cached pages of a row's first tokens, at most `limit`; when it is not given, of all but the last token.

        None for a row that wants all logits.
        """
        pages: list[int] = []
        if row.all_logits:
            return pages
        for at in range((len(row.tokens) - 1) // PAGE_TOKENS if limit is None else limit):
            page = self._page_of.get(self.key(row, at))
            if page is None:
                break
            pages.append(page)
        return pages

    def attach(self, row: Row) -> int:
        """Give a row without pages the longest cached prefix; returns how many tokens that is."""
        pages = self.prefix(row)
        for page in pages:
            self._hold(page)
        row.pages, row.published = pages, len(pages)
        row.computed = len(pages) * PAGE_TOKENS
        self.asked += len(row.tokens)
        self.found += row.computed
        return row.computed

    def key(self, row: Row, page: int) -> bytes:
        """The prefix key of a full page of the row's tokens."""
        keys = row.keys
        while len(keys) <= page:
            start = len(keys) * PAGE_TOKENS
            parent = keys[-1] if keys else _digest(row.salt, b"salt")
            keys.append(_digest(parent + array("q", row.tokens[start : start + PAGE_TOKENS]).tobytes()))
        return keys[page]

    def need(self, row: Row, count: int) -> int:
        """How many of the available pages it takes until `count` more tokens than are computed can be written.

        A row without pages is taken to attach its cached prefix first; `count` is then what it has to compute in all.
        """
        if row.host_pages:
            return pages_for(row.computed + count)
        if not row.pages:
            found = self.prefix(row)
            return pages_for(count) - sum(1 for page in found if self._holders[page])
        return max(0, pages_for(row.computed + count) - len(row.pages)) + self._writes_shared(row)

    def grow(self, row: Row, count: int) -> bool:
        """Make the places of the next `count` tokens writable: new pages, and a copy of a last page that others see.

        False, and nothing changed, when there are too few pages.
        """
        end = row.computed + count
        if end <= len(row.pages) * PAGE_TOKENS and not self._writes_shared(row):
            return True
        fresh = max(0, pages_for(end) - len(row.pages))
        if fresh + self._writes_shared(row) > self.available:
            return False
        if self._writes_shared(row):
            self._copy(row, row.computed // PAGE_TOKENS)
        row.pages.extend(self._allocate() for _ in range(fresh))
        return True

    def share(self, parent: Row, row: Row, length: int) -> None:
        """Give a row without pages those of the first `length` tokens of another: the same tokens, computed there."""
        row.pages = parent.pages[: pages_for(length)]
        for page in row.pages:
            self._hold(page)
        row.computed = length
        row.published = min(parent.published, length // PAGE_TOKENS)
        row.keys = parent.keys[: length // PAGE_TOKENS]

    def fork(self, row: Row, id: str) -> Row:
        """A copy of a row that shares all its computed pages; one that is swapped out starts with none."""
        copy = replace(
            row, id=id, tokens=list(row.tokens), computed=0, pages=[], drafts=[], host_pages=[], keys=[], published=0
        )
        if row.pages:
            self.share(row, copy, row.computed)
        return copy

    def truncate(self, row: Row, length: int) -> None:
        """Forget what is computed of all but the first `length` tokens, and give back the pages after them.

        To be called before tokens are changed or cut; `row.tokens` is the caller's.
        """
        del row.keys[length // PAGE_TOKENS :]
        row.computed = min(row.computed, length)
        row.published = min(row.published, row.computed // PAGE_TOKENS)
        kept = pages_for(row.computed)
        self._drop(row.pages[kept:])
        del row.pages[kept:]
        self._host_resting.extend(row.host_pages[kept:])
        del row.host_pages[kept:]

    def publish(self, row: Row) -> None:
        """Let others find the full computed pages of a row.

        Where another row was first with the same page, this row takes that one and gives its own back.
        """
        known = min(row.computed, len(row.tokens)) // PAGE_TOKENS if self.caching else 0
        while row.published < min(known, len(row.pages)):
            at = row.published
            if at and row.pages[at - 1] not in self._key_of:
                return  # its salt was forgotten
            key, page = self.key(row, at), row.pages[at]
            first = self._page_of.setdefault(key, page)
            if first == page:
                self._key_of[page] = key, row.salt
            else:
                self._hold(first)
                row.pages[at] = first
                self._drop([page])
            row.published += 1

    def release(self, row: Row) -> None:
        """Take all pages from a row; published ones stay findable for a while."""
        self.truncate(row, 0)

    def forget_salt(self, salt: bytes) -> int:
        """Drop all of a salt from the prefix cache; returns how many pages that were. Rows keep what they hold."""
        return self._forget_all([page for page, (_, owner) in self._key_of.items() if owner == salt])

    def forget_all(self) -> None:
        """Drop the whole prefix cache: the content of pages is lost."""
        self._forget_all(list(self._key_of))

    def _forget_all(self, pages: Sequence[int]) -> int:
        for page in pages:
            self._forget(page)
            if page in self._unused:
                del self._unused[page]
                self._empty.append(page)
        return len(pages)

    def reclaimable(self, rows: Iterable[Row]) -> int:
        """How many pages become available when all these rows are released."""
        held = Counter(page for row in rows for page in row.pages)
        return sum(1 for page, count in held.items() if self._holders[page] == count)

    def swap_out(self, row: Row) -> bool:
        """Move what is computed of a row to host memory.

        False, and nothing changed, when there is no room, or when its pages are still to be filled in this step.
        """
        kept = row.pages[: pages_for(row.computed)]
        if len(kept) > len(self._host_empty) or any(page in self._incoming or page in self._copied for page in kept):
            return False
        host_pages = [self._host_empty.pop() for _ in kept]
        self._outgoing.extend(zip(kept, host_pages, strict=True))
        self._drop(row.pages)
        row.pages, row.host_pages = [], host_pages
        return True

    def swap_in(self, row: Row) -> bool:
        """Bring a row back from host memory, but for a prefix that is still cached.

        False, and nothing changed, when there are too few pages.
        """
        found = self.prefix(row, row.computed // PAGE_TOKENS)
        fresh = len(row.host_pages) - len(found)
        if fresh + sum(1 for page in found if not self._holders[page]) > self.available:
            return False
        for page in found:
            self._hold(page)
        row.pages, row.published = found, len(found)
        for host_page in row.host_pages[len(found) :]:
            page = self._allocate()
            self._incoming[page] = host_page
            row.pages.append(page)
        self._host_resting.extend(row.host_pages)
        row.host_pages = []
        return True

    def resume(self, row: Row, computed: int) -> int | None:
        """Give a row without pages those of its first `computed` tokens; how many of them are cached. The content of
        the others is to be written before anything else happens.

        None, and nothing changed, when there are too few pages.
        """
        found = self.prefix(row, computed // PAGE_TOKENS)
        fresh = pages_for(computed) - len(found)
        if fresh + sum(1 for page in found if not self._holders[page]) > self.available:
            return None
        for page in found:
            self._hold(page)
        row.pages, row.published = [*found, *(self._allocate() for _ in range(fresh))], len(found)
        row.computed = computed
        return len(found)

    def take_transfers(self) -> Transfers:
        """What is to be moved before anything is computed. From here on the pages count as moved."""
        copies = [(source, page) for page, source in self._copied.items()]
        taken = Transfers(self._outgoing, [(host, page) for page, host in self._incoming.items()], copies)
        self._outgoing, self._incoming, self._copied = [], {}, {}
        self._host_empty.extend(self._host_resting)
        self._host_resting.clear()
        pinned, self._pinned = self._pinned, []
        self._drop(pinned)
        return taken

    def _writes_shared(self, row: Row) -> bool:
        """Whether the next token goes into a page that another row, or the prefix cache, holds too."""
        if row.computed % PAGE_TOKENS == 0:
            return False
        page = row.pages[row.computed // PAGE_TOKENS]
        return self._holders[page] > 1 or page in self._key_of

    def _copy(self, row: Row, at: int) -> None:
        page, fresh = row.pages[at], self._allocate()
        source = self._copied.get(page, page)  # a page that is itself a copy of this step is not filled yet
        self._copied[fresh] = source
        for kept in [*row.pages[:at], source]:  # with its beginning, which must not become free before it
            self._hold(kept)
            self._pinned.append(kept)
        self._drop([page])
        row.pages[at] = fresh

    def _hold(self, page: int) -> None:
        self._holders[page] += 1
        if self._holders[page] == 1:
            self._unused.pop(page, None)

    def _drop(self, pages: Sequence[int]) -> None:
        for page in reversed(pages):
            self._holders[page] -= 1
            if self._holders[page] == 0 and page in self._key_of:
                self._unused[page] = None
            elif self._holders[page] == 0:
                self._empty.append(page)

    def _allocate(self) -> int:
        """A page for new content. Raises KeyError when none is available, which callers have asked before."""
        if self._empty:
            page = self._empty.pop()
        else:
            page, _ = self._unused.popitem(last=False)
            self._forget(page)
        self._incoming.pop(page, None)  # what was to come here has lost its row
        self._copied.pop(page, None)
        self._holders[page] = 1
        return page

    def _forget(self, page: int) -> None:
        key, _ = self._key_of.pop(page)
        del self._page_of[key]


def pages_for(tokens: int) -> int:
    """How many pages so many tokens take."""
    return -(-tokens // PAGE_TOKENS)


def _digest(content: bytes, purpose: bytes = b"") -> bytes:
    return blake2b(content, digest_size=KEY_BYTES, person=purpose).digest()
