"""The handle table: examples, then a state machine against a model that remembers every lineage."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from llmos.kernel.handles import Entry, HandleTable
from llmos.syscalls.errors import BadHandle, Denied, NotFound, WrongKind
from llmos.syscalls.types import ALL_RIGHTS, Handle, Kind, Right, Rights

RIGHTS = frozenset({Right.READ, Right.RUN, Right.DUP, Right.GRANT})


@pytest.fixture
def table() -> HandleTable:
    return HandleTable()


def test_numbers_start_at_one_and_are_never_used_again(table: HandleTable) -> None:
    first = table.create("s1", Kind.MODEL, "m1", RIGHTS)
    table.close("s1", first)
    second = table.create("s1", Kind.MODEL, "m1", RIGHTS)
    other = table.create("s2", Kind.MODEL, "m1", RIGHTS)
    assert (first, second, other) == (1, 2, 1)


def test_get_checks_session_kind_and_rights(table: HandleTable) -> None:
    handle = table.create("s1", Kind.MODEL, "m1", {Right.READ})
    entry = table.get("s1", handle, Kind.MODEL, (Right.READ,))
    assert entry == Entry(handle, "s1", Kind.MODEL, "m1", frozenset({Right.READ}))
    with pytest.raises(BadHandle, match=r"^model=9 is not open in this session$"):
        table.get("s1", 9, what="model")
    with pytest.raises(BadHandle, match=r"^handle=1 is not open in this session$"):
        table.get("s2", handle)
    with pytest.raises(WrongKind, match="handle=1 is a model, not a task") as wrong:
        table.get("s1", handle, Kind.TASK)
    assert (wrong.value.want, wrong.value.got) == ("task", "model")
    with pytest.raises(Denied, match=r"lacks the right run, write; it has read") as denied:
        table.get("s1", handle, rights=(Right.WRITE, Right.RUN, Right.READ))
    assert denied.value.missing == "run, write"


def test_a_handle_without_rights_says_so(table: HandleTable) -> None:
    handle = table.create("s1", Kind.MODEL, "m1", ())
    with pytest.raises(Denied, match="it has none"):
        table.get("s1", handle, rights=(Right.READ,))


def test_dup_only_narrows(table: HandleTable) -> None:
    handle = table.create("s1", Kind.MODEL, "m1", RIGHTS)
    copy = table.dup("s1", handle, {Right.READ})
    assert copy.rights == {Right.READ} and copy.parent == ("s1", handle) and copy.object == "m1"
    with pytest.raises(Denied) as wider:
        table.dup("s1", handle, {Right.READ, Right.MANAGE})
    assert wider.value.missing == "manage"
    with pytest.raises(Denied) as no_dup:
        table.dup("s1", copy.handle, {Right.READ})
    assert no_dup.value.missing == "dup"
    assert table.count("s1") == 2


def test_grant_needs_the_right_and_the_session(table: HandleTable) -> None:
    handle = table.create("s1", Kind.MODEL, "m1", RIGHTS)
    with pytest.raises(NotFound, match="no session 's2'"):
        table.grant("s1", handle, "s2", {Right.RUN})
    table.create("s2", Kind.SYSTEM, "system", ())
    given = table.grant("s1", handle, "s2", {Right.RUN})
    assert table.get("s2", given.handle, Kind.MODEL, (Right.RUN,)) == given
    with pytest.raises(Denied):
        table.grant("s2", given.handle, "s1", ())
    with pytest.raises(Denied):
        table.grant("s1", handle, "s2", ALL_RIGHTS)


def test_revoke_ends_all_descendants_but_not_itself_or_siblings(table: HandleTable) -> None:
    root = table.create("s1", Kind.MODEL, "m1", RIGHTS)
    table.create("s2", Kind.SYSTEM, "system", ())
    child = table.grant("s1", root, "s2", RIGHTS)
    grandchild = table.dup("s2", child.handle, {Right.READ})
    sibling = table.dup("s1", root, RIGHTS)
    assert {e.key for e in table.revoke("s2", child.handle)} == {grandchild.key}
    assert {e.key for e in table.revoke("s1", root)} == {child.key, sibling.key}
    assert table.revoke("s1", root) == []
    deep = root
    for _ in range(4):
        deep = table.dup("s1", deep, RIGHTS).handle
    assert len(table.revoke("s1", root)) == 4
    assert [e.handle for e in table.holders("m1")] == [root]
    with pytest.raises(BadHandle):
        table.get("s2", child.handle)


def test_revoke_needs_grant(table: HandleTable) -> None:
    handle = table.create("s1", Kind.MODEL, "m1", {Right.READ})
    with pytest.raises(Denied):
        table.revoke("s1", handle)


def test_closing_in_the_middle_keeps_the_ancestor_in_power(table: HandleTable) -> None:
    root = table.create("s1", Kind.MODEL, "m1", RIGHTS)
    middle = table.dup("s1", root, RIGHTS)
    leaf = table.dup("s1", middle.handle, RIGHTS)
    assert table.close("s1", middle.handle) == [middle]
    assert table.get("s1", leaf.handle).parent == ("s1", root)
    assert [e.key for e in table.revoke("s1", root)] == [leaf.key]
    with pytest.raises(BadHandle):
        table.close("s1", middle.handle)


def test_a_handle_made_by_the_kernel_below_another_is_revoked_with_it(table: HandleTable) -> None:
    device = table.create("s1", Kind.DEVICE, "cpu0", RIGHTS)
    made = table.create("s1", Kind.MODEL, "m1", ALL_RIGHTS, table.get("s1", device))
    assert [e.handle for e in table.revoke("s1", device)] == [made]


def test_create_below_a_closed_handle_is_refused(table: HandleTable) -> None:
    device = table.get("s1", table.create("s1", Kind.DEVICE, "cpu0", RIGHTS))
    table.close("s1", device.handle)
    with pytest.raises(BadHandle):
        table.create("s1", Kind.MODEL, "m1", ALL_RIGHTS, device)


def test_a_session_that_ends_takes_its_handles_and_leaves_what_it_gave(table: HandleTable) -> None:
    root = table.create("s1", Kind.MODEL, "m1", RIGHTS)
    table.create("s2", Kind.SYSTEM, "system", ())
    middle = table.grant("s1", root, "s2", RIGHTS)
    table.create("s3", Kind.SYSTEM, "system", ())
    leaf = table.grant("s2", middle.handle, "s3", {Right.READ})
    assert {e.object for e in table.close_session("s2")} == {"system", "m1"}
    assert table.count("s2") == 0 and table.of_session("s2") == []
    assert [e.key for e in table.revoke("s1", root)] == [leaf.key]
    with pytest.raises(NotFound):
        table.grant("s1", root, "s2", ())
    assert table.close_session("never") == []
    table.dup("s1", table.dup("s1", table.dup("s1", root, RIGHTS).handle, RIGHTS).handle, RIGHTS)
    table.revoke("s1", root)
    for session in ("s1", "s3"):
        table.close_session(session)
    assert not any(vars(table).values()), "nothing is kept of sessions that ended"


def test_an_object_that_ends_takes_all_its_handles(table: HandleTable) -> None:
    root = table.create("s1", Kind.MODEL, "m1", RIGHTS)
    table.dup("s1", root, RIGHTS)
    other = table.create("s1", Kind.MODEL, "m2", RIGHTS)
    assert len(table.close_object("m1")) == 2
    assert table.holders("m1") == [] and [e.handle for e in table.of_session("s1")] == [other]
    assert table.close_object("m1") == []


class Authority(RuleBasedStateMachine):
    """Whatever is done, a handle never has a right that one of its ancestors lacked, and no number comes back."""

    def __init__(self) -> None:
        super().__init__()
        self.table = HandleTable()
        self.open: dict[tuple[str, Handle], tuple[str, Rights, tuple[tuple[str, Handle], ...]]] = {}
        self.ever: set[tuple[str, Handle]] = set()
        self.rights_of: dict[tuple[str, Handle], Rights] = {}
        self.sessions = ["s0", "s1", "s2"]
        self.ended = 0
        for session in self.sessions:
            self.made(session, self.table.create(session, Kind.SESSION, session, ALL_RIGHTS), session, ALL_RIGHTS, ())

    def made(self, session: str, handle: Handle, object: str, rights: Rights, ancestors: tuple[Any, ...]) -> None:
        key = (session, handle)
        assert key not in self.ever
        assert all(key[1] > other for owner, other in self.ever if owner == session)
        self.ever.add(key)
        self.open[key] = (object, rights, ancestors)
        self.rights_of[key] = rights

    def pick(self, data: st.DataObject) -> tuple[str, Handle]:
        return data.draw(st.sampled_from(sorted(self.open)))

    subsets = st.frozensets(st.sampled_from(sorted(Right)))
    objects = st.sampled_from(["m1", "m2"])

    @rule(data=st.data(), object=objects, rights=subsets)
    def create(self, data: st.DataObject, object: str, rights: Rights) -> None:
        session = data.draw(st.sampled_from(self.sessions))
        self.made(session, self.table.create(session, Kind.MODEL, object, rights), object, rights, ())

    @precondition(lambda self: self.open)
    @rule(data=st.data(), rights=subsets, to=st.none() | st.integers(0, 2))
    def derive_anything(self, data: st.DataObject, rights: Rights, to: int | None) -> None:
        self.derive(self.pick(data), rights, to)

    @precondition(lambda self: self.open)
    @rule(data=st.data(), dropped=st.frozensets(st.sampled_from(sorted(Right)), max_size=2), to=st.integers(-1, 2))
    def derive_most(self, data: st.DataObject, dropped: Rights, to: int) -> None:
        """Long lineages need copies that can be copied again."""
        needed = Right.DUP if to < 0 else Right.GRANT
        able = sorted(key for key, (_, rights, _) in self.open.items() if needed in rights)
        if able:
            key = data.draw(st.sampled_from(able))
            self.derive(key, self.open[key][1] - dropped, None if to < 0 else to)

    def derive(self, key: tuple[str, Handle], wanted: Rights, to: int | None) -> None:
        session, handle = key
        object, held, ancestors = self.open[key]
        needed = Right.DUP if to is None else Right.GRANT
        target = session if to is None else self.sessions[to]
        try:
            if to is None:
                entry = self.table.dup(session, handle, wanted)
            else:
                entry = self.table.grant(session, handle, target, wanted)
        except Denied:
            assert needed not in held or not wanted <= held
            return
        assert needed in held and entry.rights == wanted <= held and entry.object == object
        assert entry.session == target
        self.made(target, entry.handle, object, wanted, (*ancestors, (session, handle)))

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def revoke(self, data: st.DataObject) -> None:
        key = self.pick(data)
        if Right.GRANT not in self.open[key][1]:
            with pytest.raises(Denied):
                self.table.revoke(*key)
            return
        expected = {other for other, (_, _, ancestors) in self.open.items() if key in ancestors}
        assert {e.key for e in self.table.revoke(*key)} == expected
        for other in expected:
            del self.open[other]

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def close(self, data: st.DataObject) -> None:
        key = self.pick(data)
        assert [e.key for e in self.table.close(*key)] == [key]
        del self.open[key]

    @rule(data=st.data())
    def use_a_closed_one(self, data: st.DataObject) -> None:
        gone = sorted(self.ever - set(self.open))
        if gone:
            session, handle = data.draw(st.sampled_from(gone))
            with pytest.raises(BadHandle):
                self.table.get(session, handle)

    @rule(which=st.integers(0, 2))
    def end_session(self, which: int) -> None:
        session = self.sessions[which]
        mine = {key for key in self.open if key[0] == session}
        assert {e.key for e in self.table.close_session(session)} == mine
        for key in mine:
            del self.open[key]
        self.ended += 1
        new = self.sessions[which] = f"s{which}-{self.ended}"
        self.made(new, self.table.create(new, Kind.SESSION, new, ALL_RIGHTS), new, ALL_RIGHTS, ())

    @rule(object=objects)
    def end_object(self, object: str) -> None:
        mine = {key for key, (named, _, _) in self.open.items() if named == object}
        assert {e.key for e in self.table.close_object(object)} == mine
        for key in mine:
            del self.open[key]

    @invariant()
    def nobody_has_a_right_that_was_not_given(self) -> None:
        for key, (object, rights, ancestors) in self.open.items():
            entry = self.table.get(*key)
            assert entry.rights == rights and entry.object == object
            for ancestor in ancestors:
                assert rights <= self.rights_of[ancestor]

    @invariant()
    def the_indexes_agree(self) -> None:
        for session in self.sessions:
            assert {e.key for e in self.table.of_session(session)} == {k for k in self.open if k[0] == session}
            assert self.table.count(session) == len(self.table.of_session(session))
        for object in ("m1", "m2"):
            assert {e.key for e in self.table.holders(object)} == {k for k, v in self.open.items() if v[0] == object}


Authority.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestAuthority = Authority.TestCase
