"""The ledger of bytes: examples, then a state machine that checks every sum."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from llmos.kernel.ledger import Ledger, count_text, size_text
from llmos.syscalls.errors import NoDeviceMemory, NotFound
from llmos.syscalls.types import LedgerRow

MIB = 1 << 20


@pytest.fixture
def ledger() -> Ledger:
    ledger = Ledger()
    ledger.set_device("cpu0", 100 * MIB, reserve=10 * MIB)
    return ledger


def measured(what: str, owner: str, allocator: int = 0, driver: int = 0, ledger: int = 0) -> LedgerRow:
    return LedgerRow(device="cpu0", what=what, owner=owner, allocator=allocator, driver=driver, ledger=ledger)


def row(ledger: Ledger, owner: str, what: str = "weights") -> LedgerRow:
    return next(r for r in ledger.rows("cpu0") if (r.owner, r.what) == (owner, what))


def test_admit_promises_all_rows(ledger: Ledger) -> None:
    reason = ledger.admit("cpu0", [("weights", "m1", 60 * MIB), ("kv", "m1", 20 * MIB)])
    assert reason.code == "memory.admitted" and reason.numbers["needed"] == 80 * MIB
    assert ledger.free("cpu0") == 10 * MIB and ledger.held("m1") == 80 * MIB
    assert row(ledger, "m1", "kv").predicted == row(ledger, "m1", "kv").ledger == 20 * MIB


def test_admit_is_all_or_nothing_and_says_who_holds_the_bytes(ledger: Ledger) -> None:
    ledger.admit("cpu0", [("weights", "m1", 60 * MIB)])
    ledger.set_evictable("m1", True)
    with pytest.raises(NoDeviceMemory) as refused:
        ledger.admit("cpu0", [("weights", "m2", 20 * MIB), ("kv", "m2", 11 * MIB)])
    error = refused.value
    assert (error.needed, error.free, error.evictable) == (31 * MIB, 30 * MIB, 60 * MIB)
    assert "weights of m1: 60.0 MiB" in error.by_whom and "reserve of cpu0: 10.0 MiB" in error.by_whom
    assert "31.0 MiB are needed on cpu0, 30.0 MiB of 100.0 MiB are free" in str(error)
    assert error.reasons[0]["code"] == "memory.refused" and error.reasons[0]["numbers"]["free"] == 30 * MIB
    assert ledger.held("m2") == 0 and ledger.free("cpu0") == 30 * MIB


def test_the_last_byte_can_be_admitted(ledger: Ledger) -> None:
    ledger.reserve("cpu0", "lease-1", "lease", 90 * MIB)
    assert ledger.free("cpu0") == 0
    with pytest.raises(NoDeviceMemory):
        ledger.reserve("cpu0", "lease-2", "lease", 1)


def test_an_empty_device_refuses_by_nobody() -> None:
    ledger = Ledger()
    ledger.set_device("d", 0)
    with pytest.raises(NoDeviceMemory, match="held by nobody"):
        ledger.reserve("d", "x", "lease", 1)


def test_a_row_grows_when_admitted_again(ledger: Ledger) -> None:
    ledger.reserve("cpu0", "c1", "kv", 5)
    ledger.reserve("cpu0", "c1", "kv", 7)
    assert row(ledger, "c1", "kv").predicted == 12


def test_negative_bytes_are_a_bug_of_the_caller(ledger: Ledger) -> None:
    with pytest.raises(ValueError, match="-1 bytes"):
        ledger.admit("cpu0", [("kv", "c1", 5), ("kv", "c2", -1)])
    with pytest.raises(ValueError):
        ledger.resize("cpu0", "c1", {"kv": -1})
    assert ledger.held("c1") == 0


def test_an_unknown_device_is_named(ledger: Ledger) -> None:
    with pytest.raises(NotFound, match="no device 'gpu7'; it has cpu0"):
        ledger.free("gpu7")
    with pytest.raises(NotFound, match="it has none"):
        Ledger().admit("x", [])


def test_release_gives_back_all_rows_of_an_owner(ledger: Ledger) -> None:
    ledger.set_device("gpu0", 50)
    ledger.admit("cpu0", [("weights", "m1", 30), ("kv", "m1", 10)])
    ledger.reserve("gpu0", "m1", "kv", 5)
    ledger.reserve("gpu0", "m2", "kv", 5)
    ledger.set_evictable("m1", True)
    assert ledger.release("m1") == 45
    assert ledger.release("m1") == 0
    assert ledger.free("gpu0") == 45 and ledger.evictable("cpu0") == 0


def test_what_is_measured_counts_when_it_is_more(ledger: Ledger) -> None:
    ledger.admit("cpu0", [("weights", "m1", 30 * MIB), ("kv", "m1", 10 * MIB)])
    ledger.reconcile("cpu0", [measured("weights", "m1", allocator=20 * MIB, driver=35 * MIB)])
    assert row(ledger, "m1").ledger == 35 * MIB and row(ledger, "m1").allocator == 20 * MIB
    assert row(ledger, "m1", "kv").ledger == 10 * MIB
    ledger.reconcile("cpu0", [measured("weights", "m1", allocator=20 * MIB)])
    assert row(ledger, "m1").ledger == 30 * MIB and row(ledger, "m1").driver == 0


def test_what_nobody_was_promised_is_added_and_leaves_again(ledger: Ledger) -> None:
    ledger.reconcile("cpu0", [measured("workspace", "cpu0", 4 * MIB), measured("workspace", "cpu0", 1 * MIB)])
    assert row(ledger, "cpu0", "workspace").ledger == 5 * MIB and row(ledger, "cpu0", "workspace").predicted == 0
    ledger.reserve("cpu0", "cpu0", "workspace", 2 * MIB)
    assert row(ledger, "cpu0", "workspace").predicted == 2 * MIB
    ledger.release("cpu0")
    ledger.reconcile("cpu0", [measured("workspace", "cpu0", 4 * MIB)])
    ledger.reconcile("cpu0", [])
    assert ledger.free("cpu0") == 90 * MIB


def test_one_owner_can_be_measured_alone(ledger: Ledger) -> None:
    ledger.admit("cpu0", [("weights", "m1", 10), ("weights", "m2", 10)])
    ledger.reconcile("cpu0", [measured("weights", "m1", 15), measured("weights", "m2", 15)])
    ledger.reconcile("cpu0", [measured("weights", "m1", 20), measured("weights", "m2", 99)], ["m1"])
    assert row(ledger, "m1").ledger == 20 and row(ledger, "m2").ledger == 15


def test_nonsense_from_a_driver_never_frees_bytes(ledger: Ledger) -> None:
    ledger.reconcile("cpu0", [measured("weights", "m1", -5, -7), measured("reserve", "", 50 * MIB)])
    assert ledger.free("cpu0") == 90 * MIB
    ledger.reconcile("cpu0", [measured("foreign", "firefox", -5)])
    assert ledger.free("cpu0") == 90 * MIB


def test_foreign_rows_replace_each_other(ledger: Ledger) -> None:
    ledger.reconcile("cpu0", [measured("foreign", "a", driver=5), measured("foreign", "b", ledger=7)])
    assert ledger.free("cpu0") == 90 * MIB - 12
    ledger.reconcile("cpu0", [measured("foreign", "b", driver=9)])
    assert [(r.owner, r.ledger) for r in ledger.rows("cpu0") if r.what == "foreign"] == [("b", 9)]
    ledger.reconcile("cpu0", [])
    assert ledger.free("cpu0") == 90 * MIB - 9
    ledger.set_foreign("cpu0", 3)
    assert ledger.free("cpu0") == 90 * MIB - 3
    ledger.set_foreign("cpu0", -3)
    assert ledger.free("cpu0") == 90 * MIB
    ledger.set_foreign("cpu0", 0)
    assert [r.what for r in ledger.rows("cpu0")] == ["reserve"]


def test_growth_beyond_the_device_is_excess_not_a_negative_number(ledger: Ledger) -> None:
    ledger.reserve("cpu0", "m1", "kv", 80 * MIB)
    assert ledger.excess("cpu0") == 0
    ledger.set_foreign("cpu0", 30 * MIB)
    assert ledger.free("cpu0") == 0 and ledger.excess("cpu0") == 20 * MIB


def test_resize_follows_a_model_to_sleep_and_back(ledger: Ledger) -> None:
    ledger.admit("cpu0", [("weights", "m1", 50 * MIB), ("kv", "m1", 20 * MIB)])
    ledger.reconcile("cpu0", [measured("weights", "m1", 55 * MIB)])
    ledger.resize("cpu0", "m1", {"weights": 1 * MIB})
    assert ledger.held("m1") == MIB
    ledger.reserve("cpu0", "m2", "weights", 60 * MIB)
    with pytest.raises(NoDeviceMemory):
        ledger.resize("cpu0", "m1", {"weights": 50 * MIB})
    assert ledger.held("m1") == MIB
    ledger.release("m2")
    ledger.resize("cpu0", "m1", {"weights": 90 * MIB})
    assert ledger.free("cpu0") == 0


def test_a_promise_is_lowered_even_where_too_much_is_in_use(ledger: Ledger) -> None:
    ledger.admit("cpu0", [("weights", "m1", 60 * MIB), ("kv", "m1", 30 * MIB)])
    ledger.set_foreign("cpu0", 50 * MIB)
    assert ledger.lower("cpu0", "m1", {"kv": 10 * MIB, "weights": 70 * MIB, "workspace": 5}) == 20 * MIB
    rows = [(row.what, row.predicted) for row in ledger.rows("cpu0") if row.owner]
    assert rows == [("weights", 60 * MIB), ("kv", 10 * MIB)] and ledger.excess("cpu0") == 30 * MIB
    ledger.reconcile("cpu0", [measured("kv", "m1", driver=25 * MIB), measured("x", "m1", driver=4)])
    assert ledger.lower("cpu0", "m1", {"kv": 5, "x": 1}) == 0, "what is measured counts on"
    assert ledger.held("m1") == 85 * MIB + 4
    with pytest.raises(NotFound):
        ledger.lower("none", "m1", {})


def test_what_is_promised_to_one_goes_to_another_however_little_is_free(ledger: Ledger) -> None:
    ledger.reserve("cpu0", "m1", "weights", 60 * MIB)
    ledger.reserve("cpu0", "m2", "kv", MIB)
    ledger.set_foreign("cpu0", 90 * MIB)
    ledger.move("cpu0", ("m1", "weights"), "m2", {"weights": 20 * MIB})
    rows = [(row.owner, row.what, row.predicted) for row in ledger.rows("cpu0") if row.owner]
    assert rows == [("m1", "weights", 40 * MIB), ("m2", "weights", 20 * MIB)]
    for row, size in ((("m1", "weights"), 41 * MIB), (("m1", "kv"), 1)):
        with pytest.raises(ValueError, match="to give away"):
            ledger.move("cpu0", row, "m2", {"weights": size})
    assert ledger.held("m2") == 20 * MIB


def test_a_device_that_lost_its_contents_keeps_leases(ledger: Ledger) -> None:
    ledger.reserve("cpu0", "lease-1", "lease", 5 * MIB)
    ledger.expire_at("lease-1", 100)
    ledger.admit("cpu0", [("weights", "m1", 50 * MIB), ("kv", "m1", 2 * MIB)])
    ledger.reconcile("cpu0", [measured("lease", "lease-1", 9 * MIB)])
    ledger.set_evictable("m1", True)
    assert ledger.release_device("cpu0") == ["m1"]
    assert ledger.free("cpu0") == 85 * MIB and ledger.next_expiry() == 100
    assert ledger.release_device("cpu0", keep=()) == ["lease-1"]
    assert ledger.free("cpu0") == 90 * MIB and ledger.next_expiry() is None


def test_an_owner_with_bytes_elsewhere_keeps_its_expiry(ledger: Ledger) -> None:
    ledger.set_device("gpu0", 50)
    ledger.reserve("cpu0", "x", "kv", 5)
    ledger.expire_at("x", 100)
    ledger.reserve("gpu0", "x", "kv", 5)
    assert ledger.release_device("cpu0") == ["x"] and ledger.next_expiry() == 100


def test_a_dropped_device_is_forgotten(ledger: Ledger) -> None:
    ledger.reserve("cpu0", "lease-1", "lease", 5)
    ledger.expire_at("lease-1", 100)
    assert ledger.drop_device("cpu0") == ["lease-1"]
    assert ledger.devices() == [] and ledger.next_expiry() is None and ledger.rows() == []
    assert ledger.drop_device("cpu0") == []


def test_the_size_of_a_device_can_be_corrected(ledger: Ledger) -> None:
    ledger.reserve("cpu0", "m1", "kv", 50 * MIB)
    ledger.set_device("cpu0", 40 * MIB)
    assert ledger.total("cpu0") == 40 * MIB and ledger.excess("cpu0") == 10 * MIB
    ledger.set_device("cpu0", -1, -1)
    assert ledger.total("cpu0") == 0


def test_leases_expire_once(ledger: Ledger) -> None:
    ledger.reserve("cpu0", "a", "lease", 5)
    ledger.expire_at("a", 100)
    ledger.reserve("cpu0", "b", "lease", 5)
    ledger.expire_at("b", 200)
    ledger.reserve("cpu0", "c", "lease", 5)
    assert ledger.next_expiry() == 100
    assert ledger.expire(99) == []
    assert ledger.expire(100) == ["a"]
    assert ledger.expire(100) == [] and ledger.next_expiry() == 200
    ledger.release("b")
    assert ledger.next_expiry() is None and ledger.expire(10**18) == []
    assert ledger.held("c") == 5


def test_evictable_bytes_are_counted_on_their_device(ledger: Ledger) -> None:
    ledger.set_device("gpu0", 50)
    ledger.reserve("cpu0", "m1", "weights", 5)
    ledger.reserve("gpu0", "m1", "kv", 7)
    ledger.set_evictable("m1", True)
    assert (ledger.evictable("cpu0"), ledger.evictable("gpu0")) == (5, 7)
    ledger.set_evictable("m1", False)
    assert ledger.evictable("gpu0") == 0


def pooled() -> Ledger:
    ledger = Ledger()
    ledger.set_device("cpu0", 100 * MIB, pool="host")
    ledger.set_device("host", 90 * MIB, reserve=10 * MIB, pool="host")
    ledger.set_device("gpu0", 50 * MIB)
    return ledger


def test_a_byte_of_a_pool_counts_once_on_each_of_its_devices() -> None:
    ledger = pooled()
    assert ledger.pool("cpu0") == ledger.pool("host") == ["cpu0", "host"] and ledger.pool("gpu0") == ["gpu0"]
    assert ledger.free("cpu0") == ledger.free("host") == 80 * MIB
    ledger.reserve("cpu0", "m1", "weights", 30 * MIB)
    ledger.reserve("host", "s1", "buffer", 20 * MIB)
    assert ledger.free("cpu0") == ledger.free("host") == 30 * MIB and ledger.free("gpu0") == 50 * MIB
    with pytest.raises(NoDeviceMemory) as refused:
        ledger.reserve("cpu0", "m2", "weights", 31 * MIB)
    assert "weights of m1: 30.0 MiB, buffer of s1: 20.0 MiB, reserve of host: 10.0 MiB" in refused.value.by_whom
    ledger.set_foreign("host", 45 * MIB)
    assert ledger.free("cpu0") == 0 and ledger.excess("cpu0") == ledger.excess("host") == 15 * MIB


def test_a_device_whose_own_limit_is_short_is_held_by_its_own_rows_alone() -> None:
    """The rest of the machine could be empty: that would not help."""
    ledger = pooled()
    ledger.set_device("cpu0", 30 * MIB, pool="host")
    ledger.reserve("cpu0", "m1", "weights", 25 * MIB)
    ledger.reserve("host", "s1", "buffer", 30 * MIB)
    with pytest.raises(NoDeviceMemory) as refused:
        ledger.reserve("cpu0", "m2", "weights", 6 * MIB)
    assert refused.value.free == 5 * MIB and refused.value.by_whom == "weights of m1: 25.0 MiB"
    ledger.set_foreign("host", 24 * MIB)
    with pytest.raises(NoDeviceMemory) as refused:
        ledger.reserve("cpu0", "m2", "weights", 6 * MIB)
    assert refused.value.free == MIB and "buffer of s1: 30.0 MiB" in refused.value.by_whom
    assert "other programs on host: 24.0 MiB" in refused.value.by_whom


def test_what_could_be_evicted_is_what_could_then_be_promised() -> None:
    """What sleeps in the machine's memory gives nothing to a device that is short by its own limit."""
    ledger = pooled()
    ledger.set_device("cpu0", 30 * MIB, pool="host")
    ledger.reserve("cpu0", "m1", "weights", 25 * MIB)
    ledger.reserve("host", "asleep", "weights", 40 * MIB)
    ledger.set_evictable("asleep", True)
    assert (ledger.free("cpu0"), ledger.evictable("cpu0"), ledger.evictable("host")) == (5 * MIB, 0, 40 * MIB)
    ledger.set_evictable("m1", True)
    assert ledger.evictable("cpu0") == 25 * MIB
    ledger.set_foreign("host", 24 * MIB)
    assert (ledger.excess("host"), ledger.evictable("cpu0"), ledger.evictable("host")) == (9 * MIB, 30 * MIB, 56 * MIB)


@pytest.mark.parametrize(("count", "told"), [(0, "0 requests"), (1, "1 request"), (2, "2 requests")])
def test_counts_for_people(count: int, told: str) -> None:
    assert count_text(count, "request") == told


def test_what_others_use_of_a_pool_is_told_of_the_device_that_names_it() -> None:
    ledger = pooled()
    ledger.set_foreign("cpu0", 70 * MIB)
    ledger.reconcile("cpu0", [measured("foreign", "a", driver=70 * MIB)])
    assert ledger.free("cpu0") == 80 * MIB
    ledger.set_foreign("host", 70 * MIB)
    assert ledger.free("cpu0") == 10 * MIB
    ledger.set_foreign("gpu0", MIB)
    ledger.set_device("gpu0", 50 * MIB, pool="boards")
    assert [r.what for r in ledger.rows("gpu0")] == [] and ledger.free("gpu0") == 50 * MIB


def test_a_device_may_have_less_than_its_pool() -> None:
    ledger = pooled()
    ledger.set_device("cpu0", 25 * MIB, pool="host")
    ledger.reserve("cpu0", "m1", "weights", 20 * MIB)
    assert (ledger.free("cpu0"), ledger.free("host")) == (5 * MIB, 60 * MIB)


def test_a_pool_without_a_device_of_its_own_is_as_large_as_its_largest() -> None:
    ledger = Ledger()
    ledger.set_device("a", 30, pool="board")
    ledger.set_device("b", 50, pool="board")
    ledger.reserve("a", "m1", "weights", 25)
    assert (ledger.free("a"), ledger.free("b")) == (5, 25)


def test_what_could_be_evicted_is_of_the_whole_pool() -> None:
    ledger = pooled()
    ledger.reserve("cpu0", "m1", "weights", 5)
    ledger.reserve("host", "m1", "weights", 7)
    ledger.set_evictable("m1", True)
    assert ledger.evictable("cpu0") == ledger.evictable("host") == 12 and ledger.evictable("gpu0") == 0


def test_rows_of_all_devices(ledger: Ledger) -> None:
    ledger.set_device("gpu0", 50)
    ledger.reserve("gpu0", "m1", "kv", 7)
    assert {(r.device, r.what) for r in ledger.rows()} == {("cpu0", "reserve"), ("gpu0", "kv")}


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (3 * MIB, "3.0 MiB"),
        (5 << 30, "5.0 GiB"),
        (5 << 40, "5120.0 GiB"),
    ],
)
def test_sizes_for_people(count: int, text: str) -> None:
    assert size_text(count) == text


OWNERS = st.sampled_from(["m1", "m2", "c1"])
WHATS = st.sampled_from(["weights", "kv", "lease"])
DEVICES = st.sampled_from(["cpu0", "cpu1", "host", "gpu0"])
POOL = ("cpu0", "cpu1", "host")
SIZES = st.integers(0, 120)
WILD = st.integers(-50, 150)


class Bytes(RuleBasedStateMachine):
    """Nothing is negative, every sum is exact, and nothing is promised that was not free."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger()
        self.totals = {"cpu0": 200, "cpu1": 90, "host": 250, "gpu0": 100}
        self.ledger.set_device("cpu0", 200, reserve=20, pool="host")
        self.ledger.set_device("cpu1", 90, pool="host")
        self.ledger.set_device("host", 250, reserve=10, pool="host")
        self.ledger.set_device("gpu0", 100)
        self.promised: dict[tuple[str, str, str], int] = {}

    @rule(device=DEVICES, rows=st.lists(st.tuples(WHATS, OWNERS, SIZES), max_size=3))
    def admit(self, device: str, rows: list[tuple[str, str, int]]) -> None:
        free, before = self.ledger.free(device), self.ledger.rows()
        try:
            self.ledger.admit(device, rows)
        except NoDeviceMemory as error:
            assert error.needed == sum(size for _, _, size in rows) > free == error.free
            assert error.evictable == self.ledger.evictable(device)
            assert not error.by_whom or any(self.ledger.rows(each) for each in self.ledger.pool(device))
            numbers = error.reasons[0]["numbers"]
            assert (numbers["needed"], numbers["free"]) == (error.needed, error.free)
            assert (numbers["evictable"], numbers["total"]) == (error.evictable, self.totals[device])
            assert self.ledger.rows() == before
            return
        assert sum(size for _, _, size in rows) <= free
        for what, owner, size in rows:
            key = (device, owner, what)
            self.promised[key] = self.promised.get(key, 0) + size

    @rule(device=DEVICES, owner=OWNERS, rows=st.dictionaries(WHATS, SIZES))
    def resize(self, device: str, owner: str, rows: dict[str, int]) -> None:
        before = self.ledger.rows()
        try:
            self.ledger.resize(device, owner, rows)
        except NoDeviceMemory:
            assert sorted(map(repr, self.ledger.rows())) == sorted(map(repr, before))
            return
        self.promised = {k: v for k, v in self.promised.items() if k[:2] != (device, owner)}
        self.promised |= {(device, owner, what): size for what, size in rows.items()}

    @rule(owner=OWNERS)
    def release(self, owner: str) -> None:
        held, before = self.ledger.held(owner), sum(r.ledger for r in self.ledger.rows())
        assert self.ledger.release(owner) == held == before - sum(r.ledger for r in self.ledger.rows())
        assert self.ledger.held(owner) == 0
        self.promised = {k: v for k, v in self.promised.items() if k[1] != owner}

    @rule(
        device=DEVICES,
        rows=st.lists(st.tuples(st.sampled_from(["weights", "kv", "foreign", "reserve"]), OWNERS, WILD, WILD)),
        owner=st.none() | OWNERS,
    )
    def reconcile(self, device: str, rows: list[tuple[str, str, int, int]], owner: str | None) -> None:
        others = [r for r in self.ledger.rows() if r.device != device or r.owner != owner]
        self.ledger.reconcile(device, [measured(w, o, a, d) for w, o, a, d in rows], None if owner is None else [owner])
        if owner is not None and not any(what == "foreign" for what, *_ in rows):
            assert [r for r in self.ledger.rows() if r.device != device or r.owner != owner] == others

    @rule(device=DEVICES, size=WILD)
    def foreign(self, device: str, size: int) -> None:
        self.ledger.set_foreign(device, size)

    @rule(device=DEVICES)
    def crash(self, device: str) -> None:
        self.ledger.release_device(device)
        self.promised = {k: v for k, v in self.promised.items() if k[0] != device or k[2] == "lease"}

    @rule(owner=OWNERS, evictable=st.booleans())
    def evictable(self, owner: str, evictable: bool) -> None:
        self.ledger.set_evictable(owner, evictable)

    @invariant()
    def sums_are_exact_and_nothing_is_negative(self) -> None:
        for device, total in self.totals.items():
            rows, free, excess = self.ledger.rows(device), self.ledger.free(device), self.ledger.excess(device)
            assert free >= 0 and excess >= 0 and not (free and excess)
            own = total - sum(r.ledger for r in rows)
            pool = [(each, self.totals[each]) for each in (POOL if device in POOL else (device,))]
            shared = dict(pool).get("host", total) - sum(r.ledger for each, _ in pool for r in self.ledger.rows(each))
            assert free - excess == min(own, shared)
            assert device not in ("cpu0", "cpu1") or all(r.what != "foreign" for r in rows)
            held = [r for each in self.ledger.pool(device) for r in self.ledger.rows(each)]
            assert 0 <= self.ledger.evictable(device) <= sum(r.ledger for r in held)
            for r in rows:
                assert min(r.predicted, r.ledger, r.allocator, r.driver) >= 0
                assert r.ledger == max(r.predicted, r.allocator, r.driver)
            assert len({(r.owner, r.what) for r in rows}) == len(rows)

    @invariant()
    def what_was_promised_stays_promised(self) -> None:
        rows = {
            (r.device, r.owner, r.what): r.predicted for r in self.ledger.rows() if r.what not in ("foreign", "reserve")
        }
        assert {k: v for k, v in rows.items() if v} == {k: v for k, v in self.promised.items() if v}


Bytes.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestBytes = Bytes.TestCase
