"""Keys: what the file keeps, who is let in, and two processes on one file."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from stat import S_IMODE
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmos.syscalls.errors import BadArgument, BadState, Exists, LlmosError, NotFound, Unavailable
from llmos.userland.gateway.core.caller import KeyLimits
from llmos.userland.gateway.core.keys import KeyStore, database, open_database

NOW = 1_800_000_000.0


@pytest.fixture
def store(tmp_path: Path) -> Iterator[KeyStore]:
    with closing(KeyStore(database(tmp_path))) as made:
        yield made


def test_a_key_lets_in_whom_it_was_made_for(store: KeyStore) -> None:
    text, made = store.create(
        "laptop", user="anna", scopes=["infer", "read"], models=["tiny*"], tokens_per_minute=7, requests_per_minute=8,
        concurrent=9, priority_max=10, now=NOW,
    )  # fmt: skip
    assert text.startswith(f"llmos_{made.id}_") and len(text) == 58
    assert store.find(text, NOW) == made
    assert made.limits == KeyLimits(7, 8, 9, 10) and made.models == ("tiny*",) and made.user == "anna"


def test_what_is_not_said_is_little(store: KeyStore) -> None:
    _, made = store.create("laptop", user="anna")
    assert made.scopes == {"infer", "read", "files"}
    assert (made.expires, made.models, made.limits) == (None, (), KeyLimits())


def test_the_file_holds_no_key_and_is_only_its_users(store: KeyStore) -> None:
    texts = [store.create(f"k{n}", user="anna", now=NOW)[0] for n in range(3)]
    files = list(store.path.parent.iterdir())
    assert store.path in files and S_IMODE(store.path.parent.stat().st_mode) == 0o700
    for file in files:
        assert S_IMODE(file.stat().st_mode) == 0o600
        content = file.read_bytes()
        for text in texts:
            assert text.encode() not in content and text[-43:].encode() not in content


def test_a_file_that_others_could_read_is_closed_to_them(tmp_path: Path) -> None:
    path = database(tmp_path)
    path.parent.mkdir()
    path.touch(0o644)
    path.parent.chmod(0o755)
    KeyStore(path).close()
    assert (S_IMODE(path.stat().st_mode), S_IMODE(path.parent.stat().st_mode)) == (0o600, 0o700)


def test_revoking_counts_at_once_in_every_store(store: KeyStore) -> None:
    text, made = store.create("laptop", user="anna")
    with closing(KeyStore(store.path)) as other:
        assert other.find(text) == made
        revoked = store.revoke("laptop", NOW)
        assert revoked.revoked == NOW and revoked.state(NOW) == "revoked"
        assert other.find(text) is None and store.find(text) is None


def test_revoking_by_id_twice_changes_nothing(store: KeyStore) -> None:
    made = store.create("laptop", user="anna")[1]
    assert store.revoke(made.id, NOW) == store.revoke(made.id, NOW + 5)
    with pytest.raises(NotFound, match="no key is called 'laptop'"):
        store.revoke("laptop")


def test_an_id_goes_before_a_name(store: KeyStore) -> None:
    first = store.create("first", user="anna")[1]
    second = store.create(first.id, user="anna")[1]
    assert store.revoke(first.id).id == first.id
    assert store.revoke(second.id).id == second.id


def test_a_name_is_free_again_after_its_key_is_revoked(store: KeyStore) -> None:
    store.create("laptop", user="anna", now=NOW)
    with pytest.raises(Exists, match="laptop"):
        store.create("laptop", user="bert")
    store.revoke("laptop")
    store.create("laptop", user="bert", now=NOW + 1)
    assert [(key.name, key.user) for key in store.list()] == [("laptop", "anna"), ("laptop", "bert")]


def test_an_expired_key_lets_nobody_in(store: KeyStore) -> None:
    text, made = store.create("guest", user="anna", expires=NOW + 60, now=NOW)
    assert store.find(text, NOW + 59.9) == made and store.valid(made.id, NOW + 59.9)
    assert store.find(text, NOW + 60) is None
    assert made.state(NOW + 60) == "expired" and not store.valid(made.id, NOW + 60)
    assert not store.valid("aaaaaaaa")


def test_the_last_use_is_kept_to_the_minute(store: KeyStore) -> None:
    text, made = store.create("laptop", user="anna", now=NOW)
    for at in (NOW, NOW + 59, NOW + 61):
        store.touch(made.id, at)
        found = store.find(text, at)
        assert found is not None and found.used == (NOW + 61 if at > NOW + 60 else NOW)


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"name": ""}, "name"), ({"name": "a\nb"}, "name"), ({"name": "x" * 101}, "name"), ({"user": ""}, "user"),
        ({"scopes": []}, "scopes"), ({"scopes": ["infer", "everything"]}, "scopes"), ({"models": [""]}, "models"),
        ({"expires": NOW}, "expires"), ({"expires": 1e12}, "expires"), ({"expires": float("nan")}, "expires"),
        ({"tokens_per_minute": -1}, "tokens_per_minute"), ({"requests_per_minute": 1 << 60}, "requests_per_minute"),
        ({"concurrent": -1}, "concurrent"), ({"priority_max": 101}, "priority_max"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(store: KeyStore, fields: dict[str, object], name: str) -> None:
    given: dict[str, object] = {"name": "laptop", "user": "anna", "now": NOW, **fields}
    with pytest.raises(BadArgument) as raised:
        store.create(given.pop("name"), **given)  # type: ignore[arg-type]
    assert raised.value.name == name and store.list() == []


def test_the_name_of_a_key_that_has_expired_is_free(store: KeyStore) -> None:
    old, _ = store.create("laptop", user="anna", expires=NOW + 5, now=NOW)
    with pytest.raises(Exists):
        store.create("laptop", user="anna", now=NOW + 4)
    new, made = store.create("laptop", user="anna", now=NOW + 6)
    assert (store.find(old, NOW + 6), store.find(new, NOW + 6)) == (None, made)


def test_a_text_that_is_nearly_a_key_is_none(tmp_path: Path) -> None:
    with closing(KeyStore(database(tmp_path))) as store:
        text, made = store.create("laptop", user="anna")

        @given(st.one_of(st.text(), st.integers(0, len(text) - 1).flatmap(
            lambda at: st.sampled_from([text[:at], text[:at] + text[at + 1 :], text[:at] + "\n" + text[at:],
                                        text[:at] + ("a" if text[at] != "a" else "b") + text[at + 1 :]])
        )))  # fmt: skip
        def check(other: str) -> None:
            assert store.find(other) is None

        check()
        assert store.find(text) == made
        assert store.find(text + "\n") is None and store.find(f" {text}") is None


@settings(max_examples=25)
@given(st.lists(st.tuples(st.sampled_from(["create", "revoke", "expire"]), st.sampled_from("abc")), max_size=12))
def test_a_key_is_good_exactly_from_its_making_to_its_end(steps: list[tuple[str, str]]) -> None:
    with TemporaryDirectory() as folder, closing(KeyStore(database(Path(folder)))) as store:
        good: dict[str, str] = {}
        ended: list[str] = []
        now = NOW
        for what, name in steps:
            now += 1
            if what == "revoke":
                try:
                    store.revoke(name, now)
                    ended += [good.pop(name)] if name in good else []
                except NotFound:
                    assert name not in good
                continue
            try:
                text, _ = store.create(name, user="u", expires=now + 0.5 if what == "expire" else None, now=now)
            except Exists:
                continue
            if what == "expire":
                ended.append(text)
                store.revoke(name, now + 0.6)
            else:
                good[name] = text
        assert all(store.find(text, now + 1) is not None for text in good.values())
        assert not any(store.find(text, now + 1) for text in ended)


def test_another_process_sees_and_makes_keys(store: KeyStore) -> None:
    program = (
        "import sys; from pathlib import Path; from llmos.userland.gateway.core.keys import KeyStore\n"
        "store = KeyStore(Path(sys.argv[1])); print(store.create('there', user='bert')[0])\n"
        "store.revoke('here')"
    )
    here, _ = store.create("here", user="anna")
    ran = subprocess.run(
        [sys.executable, "-c", program, str(store.path)], capture_output=True, text=True, check=True
    )  # fmt: skip
    assert store.find(here) is None
    found = store.find(ran.stdout.strip())
    assert found is not None and found.user == "bert"


def test_another_process_is_seen_by_a_process_that_opened_the_file_twice(store: KeyStore) -> None:
    program = (
        "import sys; from pathlib import Path; from llmos.userland.gateway.core.keys import KeyStore\n"
        "store = KeyStore(Path(sys.argv[1])); store.revoke('here'); store.close()"
    )
    here, _ = store.create("here", user="anna")
    # The gateway does so: keys, and what it keeps beside them.
    with closing(open_database(store.path)):
        assert store.find(here) is not None
        subprocess.run([sys.executable, "-c", program, str(store.path)], check=True)
        assert store.find(here) is None
        assert store.create("there", user="bert")[1] in store.list()
        with closing(sqlite3.connect(store.path)) as other:
            assert other.execute("SELECT count(*) FROM keys").fetchone() == (2,)


def test_a_locked_file_is_worth_another_try(store: KeyStore, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(KeyStore(store.path)) as other:
        other._connection.execute("PRAGMA busy_timeout=0")
        store._connection.execute("BEGIN IMMEDIATE")
        with pytest.raises(Unavailable) as raised:
            other.create("laptop", user="anna")
        assert raised.value.retry_after_ms == 1000
        store._connection.execute("ROLLBACK")
        other.create("laptop", user="anna")


@pytest.mark.parametrize("content", [b"this is no database at all" * 100, b"SQLite format 3\x00" + b"\xff" * 4000])
def test_a_damaged_file_is_left_alone(tmp_path: Path, content: bytes) -> None:
    path = database(tmp_path)
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(BadState, match=r"gateway\.db"):
        KeyStore(path)
    assert path.read_bytes() == content


def test_a_file_of_a_newer_version_is_left_alone(store: KeyStore) -> None:
    with closing(sqlite3.connect(store.path)) as connection:
        connection.execute("PRAGMA user_version=2")
    with pytest.raises(BadState, match="newer version"):
        KeyStore(store.path)


def test_every_trouble_of_the_file_is_a_typed_error(store: KeyStore) -> None:
    store._connection.execute("DROP TABLE keys")
    for trouble in (store.list, lambda: store.revoke("x"), lambda: store.touch("x", NOW)):
        with pytest.raises(LlmosError, match="no such table"):
            trouble()
