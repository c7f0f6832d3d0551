"""Pages: nothing leaks, nothing is written by two, and each row's pages hold exactly its tokens."""

from __future__ import annotations

from fake_pages import FakePages
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from llmos.drivers.engine.blocks import BlockManager, pages_for
from llmos.drivers.engine.steps import PAGE_TOKENS, Row

PAGES, HOST_PAGES = 12, 7


def row_of(pages: int, tail: int = 0, id: str = "r", first: int = 0, salt: bytes = b"") -> Row:
    """A row of so many full pages and a rest."""
    return Row(id, list(range(first, first + pages * PAGE_TOKENS + tail)), salt)


def compute(blocks: BlockManager, row: Row, count: int | None = None) -> None:
    """All, or the next `count`, of a row's tokens are computed and may be found."""
    count = len(row.tokens) - row.computed if count is None else count
    assert blocks.grow(row, count)
    blocks.take_transfers()
    row.computed += count
    blocks.publish(row)


def test_a_prefix_is_found_in_full_pages_and_never_whole() -> None:
    blocks = BlockManager(8)
    compute(blocks, row := row_of(2, 5))
    assert blocks.match(row.tokens) == row.pages[:2]
    assert blocks.match(row.tokens[:32]) == row.pages[:1]
    assert blocks.match(row.tokens[:33]) == row.pages[:2]
    assert blocks.match(row.tokens[:16]) == []
    assert blocks.match(row.tokens[1:]) == []
    other = Row("o", [*row.tokens[:32], 7])
    assert blocks.attach(other) == other.computed == 32
    assert other.pages == row.pages[:2]
    assert (blocks.asked, blocks.found) == (33, 32)


def test_another_salt_finds_nothing_and_can_be_forgotten() -> None:
    blocks = BlockManager(8)
    compute(blocks, plain := row_of(2))
    compute(blocks, salted := row_of(2, id="s", salt=b"adapter 3"))
    assert not set(plain.pages) & set(salted.pages)
    blocks.release(salted)
    assert (blocks.used, blocks.cached) == (2, 2)
    assert blocks.forget_salt(b"adapter 3") == 2
    assert (blocks.used, blocks.cached, blocks.available) == (2, 0, 6)
    assert blocks.match(salted.tokens, b"adapter 3") == []
    assert len(blocks.match(plain.tokens)) == 1


def test_a_row_of_a_forgotten_salt_adds_nothing_behind_what_is_gone() -> None:
    blocks = BlockManager(8)
    row = row_of(3, salt=b"x")
    compute(blocks, row, 16)
    blocks.forget_salt(b"x")
    compute(blocks, row)
    blocks.release(row)
    assert blocks.cached == 0


def test_what_was_unused_for_longest_goes_first_and_an_end_before_its_beginning() -> None:
    blocks = BlockManager(6)
    compute(blocks, old := row_of(3, id="old"))
    compute(blocks, young := row_of(3, id="young", first=1000))
    blocks.release(old)
    blocks.release(young)
    compute(blocks, row_of(2, id="new", first=2000))
    assert len(blocks.match([*range(48), 0])) == 1
    assert len(blocks.match([*range(1000, 1048), 0])) == 3


def test_two_rows_that_computed_the_same_share_from_then_on() -> None:
    blocks = BlockManager(8)
    first, second = row_of(2, 1, "a"), row_of(2, 1, "b")
    for row in (first, second):
        assert blocks.attach(row) == 0
        assert blocks.grow(row, 33)
    assert blocks.used == 6
    for row in (first, second):
        row.computed = 33
        blocks.publish(row)
    assert first.pages[:2] == second.pages[:2]
    assert first.pages[2] != second.pages[2]
    assert blocks.used == 4


def test_writing_into_a_page_that_another_row_holds_copies_it_first() -> None:
    blocks = BlockManager(4)
    compute(blocks, row := row_of(1, 4))
    fork = blocks.fork(row, "fork")
    assert (fork.pages, fork.computed, blocks.used) == (row.pages, 20, 2)
    assert blocks.need(fork, 1) == 1
    assert blocks.grow(fork, 1)
    assert blocks.take_transfers().copies == [(row.pages[1], fork.pages[1])]
    assert blocks.need(row, 1) == 0
    assert blocks.grow(row, 1)
    assert blocks.take_transfers().copies == []


def test_writing_into_a_page_that_others_may_find_copies_it_first() -> None:
    blocks = BlockManager(4)
    compute(blocks, row := row_of(2))
    blocks.truncate(row, 20)
    row.tokens[20:] = [5] * 12
    page = row.pages[1]
    compute(blocks, row)
    assert row.pages[1] != page
    assert blocks.match([*range(32), 0]) == [row.pages[0], page]
    assert blocks.match([*row.tokens, 0]) == row.pages


def test_too_few_pages_change_nothing() -> None:
    blocks = BlockManager(3)
    compute(blocks, row := row_of(1, 1))
    before = list(row.pages)
    fork = blocks.fork(row, "f")
    assert blocks.need(fork, 20) == 2
    assert not blocks.grow(fork, 20)
    assert (row.pages, fork.pages, blocks.available) == (before, before, 1)
    assert blocks.grow(fork, 15)


def test_swapped_rows_come_back_and_share_what_is_still_cached() -> None:
    blocks = BlockManager(5, host_pages=3)
    compute(blocks, row := row_of(2, 3))
    pages = list(row.pages)
    assert blocks.swap_out(row)
    assert (row.pages, len(row.host_pages), row.computed) == ([], 3, 35)
    assert list(blocks.take_transfers().swap_out) == list(zip(pages, row.host_pages, strict=True))
    assert (blocks.used, blocks.cached, blocks.host_used) == (0, 2, 3)
    compute(blocks, other := row_of(4, id="o", first=500))
    assert not blocks.swap_in(row)
    blocks.release(other)
    last = row.host_pages[1:]
    assert blocks.swap_in(row)
    assert (row.pages[0], row.published, row.host_pages) == (pages[0], 1, [])
    assert list(blocks.take_transfers().swap_in) == list(zip(last, row.pages[1:], strict=True))
    assert (blocks.used, blocks.host_used) == (3, 0)


def test_a_row_without_room_in_host_memory_stays() -> None:
    blocks = BlockManager(4, host_pages=1)
    compute(blocks, row := row_of(2))
    assert not blocks.swap_out(row)
    assert len(row.pages) == 2


def test_pages_that_are_still_to_be_filled_do_not_leave() -> None:
    blocks = BlockManager(4, host_pages=2)
    compute(blocks, row := row_of(0, 4))
    fork = blocks.fork(row, "f")
    assert blocks.grow(fork, 1)
    assert not blocks.swap_out(fork)
    assert blocks.swap_out(row)


def test_a_fork_goes_its_own_way() -> None:
    blocks = BlockManager(8)
    compute(blocks, row := row_of(1, 4))
    row.drafts = [1, 2]
    fork = blocks.fork(row, "f")
    fork.tokens.append(3)
    fork.pages.append(7)
    assert (fork.drafts, len(row.tokens), len(row.pages)) == ([], 20, 2)


def test_what_a_row_needs_is_told_before() -> None:
    blocks = BlockManager(8, host_pages=4)
    compute(blocks, row := row_of(2, 5))
    other = row_of(3, id="o")
    assert blocks.need(other, 48) == 1
    blocks.swap_out(row)
    assert blocks.need(row, 12) == 4
    assert blocks.need(other, 48) == 3


def test_a_page_that_a_copy_reads_is_not_given_away_before() -> None:
    blocks = BlockManager(3)
    compute(blocks, row := row_of(0, 4))
    fork = blocks.fork(row, "f")
    assert blocks.grow(fork, 1)
    source, new = row.pages[0], row_of(1, id="new")
    blocks.release(row)
    assert blocks.grow(new, 16)
    assert new.pages != [source]
    assert (blocks.used, blocks.available) == (3, 0)
    assert blocks.take_transfers().copies == [(source, fork.pages[0])]
    assert blocks.available == 1


def test_a_copy_of_a_copy_reads_what_the_first_reads() -> None:
    blocks = BlockManager(3)
    compute(blocks, row := row_of(0, 4))
    forks = [fork := blocks.fork(row, "f")]
    assert blocks.grow(fork, 1)
    forks.append(blocks.fork(fork, "g"))
    assert blocks.grow(forks[1], 1)
    assert blocks.take_transfers().copies == [(row.pages[0], each.pages[0]) for each in forks]


def test_what_was_to_come_into_a_page_stays_away_when_its_row_is_gone() -> None:
    blocks = BlockManager(2, host_pages=1)
    compute(blocks, row := row_of(0, 4))
    assert blocks.swap_out(row)
    compute(blocks, other := row_of(0, 5, id="o"))
    assert blocks.swap_in(row)
    (page,) = row.pages
    blocks.release(row)
    fork = blocks.fork(other, "f")
    assert blocks.grow(fork, 1)
    moved = blocks.take_transfers()
    assert (moved.swap_in, moved.copies) == ([], [(other.pages[0], page)])


def test_only_pages_that_no_other_row_holds_come_free() -> None:
    blocks = BlockManager(8)
    compute(blocks, row := row_of(2, 4))
    fork = blocks.fork(row, "f")
    assert blocks.reclaimable([row]) == 0
    assert blocks.reclaimable([row, fork]) == 3


class Rows(RuleBasedStateMachine):
    """Any sequence of operations, gathered into steps, on pages with content."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = BlockManager(PAGES, HOST_PAGES)
        self.memory = FakePages(PAGES, HOST_PAGES)
        self.rows: list[Row] = []
        self.writes: dict[Row, list[int]] = {}
        """Rows that grew in this step, with the drafts they will compute after their tokens."""
        self.known: dict[tuple[bytes, tuple[int, ...]], None] = {}
        """Sequences of which something was published."""
        self.forgotten: set[bytes] = set()
        self.number = 0

    which = st.integers(0, 5)
    parts = st.lists(st.integers(0, 1), max_size=4)
    salts = st.sampled_from([b"", b"", b"x"])
    tail = st.sampled_from([1, 2, 15, 16])

    def pick(self, which: int) -> Row:
        return self.rows[which % len(self.rows)]

    @precondition(lambda self: len(self.rows) < 6)
    @rule(parts=parts, tail=tail, salt=salts)
    def add(self, parts: list[int], tail: int, salt: bytes) -> None:
        self.insert(parts, tail, salt)

    def insert(self, parts: list[int], tail: int, salt: bytes) -> Row:
        self.number += 1
        row = Row(str(self.number), [part for part in parts for _ in range(PAGE_TOKENS)] + [3] * tail, salt)
        found = self.blocks.match(row.tokens, salt)
        assert self.blocks.attach(row) == len(found) * PAGE_TOKENS < len(row.tokens)
        assert row.pages == found
        self.rows.append(row)
        return row

    @precondition(lambda self: len(self.rows) < 6)
    @rule(parts=parts, tail=tail, salt=salts)
    def serve(self, parts: list[int], tail: int, salt: bytes) -> None:
        """A whole prompt in one step."""
        row = self.insert(parts, tail, salt)
        if self.blocks.grow(row, len(row.tokens) - row.computed):
            self.writes[row] = list(row.tokens)
        self.carry_out()
        for each, tokens in self.writes.items():
            self.advance(each, tokens, len(tokens))
            self.register(each)
        self.writes.clear()
        self.look()

    @precondition(lambda self: self.rows)
    @rule(which=which, most=st.sampled_from([1, 5, 16, 40]), drafts=st.integers(0, 3))
    def grow(self, which: int, most: int, drafts: int) -> None:
        row = self.pick(which)
        if row.host_pages:
            return
        self.writes.pop(row, None)
        if row.computed == len(row.tokens):
            row.tokens.append(row.computed % 3)
        count = min(most, len(row.tokens) - row.computed)
        guessed = [9] * drafts if count == len(row.tokens) - row.computed else []
        need, available = self.blocks.need(row, count + len(guessed)), self.blocks.available
        if row.pages:
            assert self.blocks.grow(row, count + len(guessed)) == (need <= available)
            grew = need <= available
        else:
            grew = self.blocks.grow(row, count + len(guessed))
        if grew:
            self.writes[row] = row.tokens[: row.computed + count] + guessed

    @precondition(lambda self: self.rows and len(self.rows) < 6)
    @rule(which=which)
    def fork(self, which: int) -> None:
        self.number += 1
        self.rows.append(self.blocks.fork(self.pick(which), str(self.number)))

    @precondition(lambda self: self.rows and len(self.rows) < 6)
    @rule(which=which, back=st.integers(1, 20))
    def share(self, which: int, back: int) -> None:
        parent = self.pick(which)
        if parent.pages and parent.computed > back:
            self.number += 1
            row = Row(str(self.number), parent.tokens[: parent.computed - back + 1], parent.salt)
            self.blocks.share(parent, row, parent.computed - back)
            self.rows.append(row)

    @precondition(lambda self: self.rows)
    @rule(which=which, back=st.sampled_from([0, 1, 3, 16, 30]))
    def truncate(self, which: int, back: int) -> None:
        row = self.pick(which)
        self.writes.pop(row, None)
        length = max(0, row.computed - back)
        self.blocks.truncate(row, length)
        row.tokens[length:] = [4]

    @precondition(lambda self: self.rows)
    @rule(which=which)
    def release(self, which: int) -> None:
        row = self.pick(which)
        self.rows.remove(row)
        self.writes.pop(row, None)
        self.blocks.release(row)
        assert not row.pages
        assert not row.host_pages

    @precondition(lambda self: self.rows)
    @rule(which=which)
    def swap_out(self, which: int) -> None:
        row = self.pick(which)
        if row.pages and self.blocks.swap_out(row):
            self.writes.pop(row, None)

    @precondition(lambda self: self.rows)
    @rule(which=which)
    def swap_in(self, which: int) -> None:
        row = self.pick(which)
        if row.host_pages:
            enough = self.blocks.need(row, 0) <= self.blocks.available
            assert self.blocks.swap_in(row) or not enough

    @precondition(lambda self: self.rows and not self.writes)
    @rule(which=which)
    def resume(self, which: int) -> None:
        """A row leaves with what was computed of it, and comes back."""
        row = self.pick(which)
        if row.host_pages:
            return
        self.carry_out()
        computed = row.computed
        content = [list(self.memory.device[page]) for page in row.pages[: pages_for(computed)]]
        self.blocks.release(row)
        known = self.blocks.resume(row, computed)
        if known is None:
            assert not row.pages and row.computed == 0
        else:
            assert row.computed == computed and len(row.pages) == len(content)
            for page, cells in zip(row.pages[known:], content[known:], strict=True):
                self.memory.device[page] = cells
            self.register(row)
        self.look()

    @precondition(lambda self: self.rows)
    @rule(which=which)
    def publish(self, which: int) -> None:
        self.register(self.pick(which))

    @rule(salt=st.sampled_from([b"x", b"x", b"x", b""]))
    def forget(self, salt: bytes) -> None:
        self.blocks.forget_salt(salt)
        self.forgotten.add(salt)
        assert all(not self.blocks.match([*tokens, 0], salt) for owner, tokens in self.known if owner == salt)

    @rule(data=st.data())
    def step(self, data: st.DataObject) -> None:
        self.carry_out()
        for row, tokens in self.writes.items():
            self.advance(row, tokens, data.draw(st.integers(min(len(tokens), len(row.tokens)), len(tokens))))
            if data.draw(st.booleans()):
                self.register(row)
        self.writes.clear()
        self.look()

    def carry_out(self) -> None:
        moves = self.blocks.take_transfers()
        self.memory.move(moves.swap_out, moves.swap_in, moves.copies)
        written: set[int] = set()
        for row, tokens in self.writes.items():
            pages = self.memory.write(row, row.computed, tokens)
            assert not pages & written, "two rows write one page"
            written |= pages

    def advance(self, row: Row, tokens: list[int], computed: int) -> None:
        """Of the tokens with their drafts, so many were right."""
        row.computed = computed
        row.tokens[:computed] = tokens[:computed]
        if computed < len(tokens):
            self.blocks.truncate(row, computed)
        if computed == len(row.tokens):
            row.tokens.append(5)

    def register(self, row: Row) -> None:
        self.blocks.publish(row)
        self.known[row.salt, tuple(row.tokens[: row.computed])] = None
        if row.salt not in self.forgotten and row.pages:
            full = row.pages[: row.computed // PAGE_TOKENS]
            assert self.blocks.match([*row.tokens[: row.computed], 0], row.salt) == full

    def look(self) -> None:
        """With all transfers done, everything that counts as computed is there, and no page is lost."""
        for row in self.rows:
            self.memory.check(row)
        held = {page for row in self.rows for page in row.pages}
        assert self.blocks.used == len(held)
        assert self.blocks.host_used == sum(len(row.host_pages) for row in self.rows)
        reachable = set()
        for salt, tokens in self.known:
            pages = self.blocks.match([*tokens, 0], salt)
            self.memory.check_prefix(pages, tokens, salt)
            reachable |= set(pages)
        assert self.blocks.cached == len(reachable - held), "a page is cached that nobody can find"

    @invariant()
    def pages_cover_what_is_computed(self) -> None:
        assert 0 <= self.blocks.available <= PAGES
        for row in self.rows:
            assert len(set(row.pages)) == len(row.pages)
            assert len(row.host_pages or row.pages) >= pages_for(row.computed)

    def teardown(self) -> None:
        for row in self.rows:
            self.blocks.release(row)
        self.blocks.take_transfers()
        assert (self.blocks.used, self.blocks.host_used) == (0, 0)


Rows.TestCase.settings = settings(max_examples=2 * settings().max_examples, stateful_step_count=50, deadline=None)
TestRows = Rows.TestCase
