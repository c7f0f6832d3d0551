from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llmos.drivers.filesystems.models.store import (
    Layer, Model, Refs, Store, Version, next_order, read_refs, without_version, write_refs,
)  # fmt: skip
from llmos.syscalls.errors import BadModel, NotFound


def version(name: str, order: int = 0, previous: str = "") -> Version:
    return Version(name, Path("/nowhere") / name, False, True, order, previous)


def model_of(versions: Sequence[Version], refs: Refs | None = None) -> Model:
    return Model(("m",), {version.name: version for version in versions}, refs or Refs())


THREE = [version("1", 1), version("2", 2, "1"), version("3", 3, "2")]


def add_version(folder: Path, name: str, **manifest: Any) -> None:
    kept = folder / "versions" / name
    kept.mkdir(parents=True)
    (kept / "manifest.json").write_text(json.dumps(manifest))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store([Layer(tmp_path / "top", True), Layer(tmp_path / "low", False)])


def test_the_newest_is_current_unless_an_older_one_is_pinned_over_it() -> None:
    assert model_of(THREE).current == "3"
    assert model_of(THREE, Refs(pinned="1", newest="3")).current == "1"
    # A version that was committed after the pin is current again, and a pin on what is gone does not count.
    assert model_of(THREE, Refs(pinned="1", newest="2")).current == "3"
    assert model_of(THREE, Refs(pinned="0", newest="3")).current == "3"


def test_selectors() -> None:
    model = model_of(THREE, Refs({"prod": "2", "3": "1", "gone": "9"}, pinned="1", newest="3"))
    chosen = {selector: model.choose(selector).name for selector in ("", "latest", "2", "prod", "3")}
    assert chosen == {"": "1", "latest": "1", "2": "2", "prod": "2", "3": "3"}
    for selector in ("4", "gone", "PROD", " 2"):
        with pytest.raises(NotFound, match="it has 1, 2, 3, prod"):
            model.choose(selector)


def test_going_back_follows_what_was_current_before() -> None:
    four = [*THREE, version("4", 4, "1")]
    model = model_of(four)
    assert model.before(model.versions["4"]) == four[0]
    assert model.before(model.versions["1"]) is None
    assert model.before(model.versions["3"]) == four[1]
    # Where it is not known, the version before by age.
    assert model_of([version("a"), version("b")]).before(version("b")) == version("a")


@given(st.lists(st.sampled_from(["commit", "remove", "rollback"]), max_size=12), st.randoms())
def test_numbers_are_never_given_twice(steps: list[str], random: Any) -> None:
    model: Model | None = None
    given_out: list[int] = []
    for step in steps:
        if step == "commit" or model is None:
            order = next_order(model)
            assert order not in given_out
            given_out.append(order)
            new = version(str(order), order, model.current if model else "")
            model = model_of([*(model.versions.values() if model else []), new], model.refs if model else None)
            assert model.current == new.name
        elif step == "remove" and len(model.versions) > 1:
            gone = random.choice([*model.versions])
            before = model.current
            left = [version for version in model.versions.values() if version.name != gone]
            model = model_of(left, without_version(model, gone))
            assert gone == before or model.current == before
        elif step == "rollback":
            back = model.before(model.choose(""))
            if back is not None:
                model = model_of([*model.versions.values()], Refs(pinned=back.name, newest=model.newest,
                                                                  last=model.refs.last))  # fmt: skip
                assert model.current == back.name


def test_plain_and_committed_versions_lie_side_by_side(store: Store, tmp_path: Path, make_model: Any) -> None:
    folder = make_model(tmp_path / "top" / "m")
    add_version(folder, "2", order=2)
    add_version(folder, "10", order=10)
    add_version(folder, "by-hand")
    add_version(folder, ".hidden")
    (folder / "versions" / "unfinished").mkdir()
    model = store.model(("m",))
    assert model is not None
    assert [*model.versions] == ["by-hand", "local", "2", "10"]
    assert model.versions["local"].plain and model.versions["local"].marker.name == "config.json"
    assert model.versions["2"].marker.name == "manifest.json"


def test_the_manifest_of_a_plain_folder_names_its_version(store: Store, tmp_path: Path, make_model: Any) -> None:
    for name, manifest in [("a", {"version": "v1"}), ("b", {"version": "no/good"}), ("c", {"version": 5}), ("d", [])]:
        make_model(tmp_path / "top" / name, {"manifest.json": json.dumps(manifest).encode()})
    names = {path: [*model.versions] for path in "abcd" if (model := store.model((path,)))}
    assert names == {"a": ["v1"], "b": ["local"], "c": ["local"], "d": ["local"]}


def test_layers_are_merged_and_the_upper_one_wins(store: Store, tmp_path: Path, make_model: Any) -> None:
    make_model(tmp_path / "low" / "m", {"manifest.json": b'{"version": "v1"}'})
    add_version(tmp_path / "top" / "m", "1", order=1)
    model = store.model(("m",))
    assert model is not None and [*model.versions] == ["v1", "1"]
    assert not model.versions["v1"].writable and model.versions["1"].writable
    make_model(tmp_path / "top" / "m", {"manifest.json": b'{"version": "v1"}'})
    again = store.model(("m",))
    assert again is not None and again.versions["v1"].folder == tmp_path / "top" / "m"


def test_names_are_resolved(store: Store, tmp_path: Path, make_model: Any) -> None:
    make_model(tmp_path / "low" / "tiny", {"sub/file@x": b""})
    make_model(tmp_path / "top" / "org" / "big model")
    (tmp_path / "top" / "plain").mkdir()
    (tmp_path / "top" / "plain" / "file").touch()
    tiny = store.model(("tiny",))
    for parts, selector, inner in [
        (("tiny",), "", ()), (("tiny@v1",), "v1", ()), (("tiny@",), "", ()), (("tiny", "a", "b@c"), "", ("a", "b@c")),
    ]:  # fmt: skip
        target = store.resolve(parts)
        assert (target.model, target.selector, target.inner) == (tiny, selector, inner)
    target = store.resolve(("org", "big model@prod", "config.json"))
    assert target.model is not None and target.model.path == "/org/big model"
    assert (target.selector, target.inner) == ("prod", ("config.json",))
    for parts in [(), ("org",), ("plain",)]:
        assert store.resolve(parts).model is None
    for parts in [("tin",), ("org", "other"), ("org@1",), ("org@1", "big model"), (".llmos",), ("org", "x", "y")]:
        with pytest.raises(NotFound):
            store.resolve(parts)
    for parts, hint in ((("tinny",), "did you mean tiny"), (("org", "other"), "; there is org/big model$")):
        with pytest.raises(NotFound, match=hint):
            store.resolve(parts)
    with pytest.raises(NotFound, match="did you mean org/big model"):
        store.resolve(("org", "bigmodel"))
    assert [model.path for model in store.models()] == ["/org/big model", "/tiny"]


def test_what_an_interrupted_commit_left_is_not_shown(store: Store, tmp_path: Path) -> None:
    (tmp_path / "top" / "half" / "versions").mkdir(parents=True)
    (tmp_path / "top" / "earlier").mkdir()
    (tmp_path / "top" / ".llmos").mkdir()
    (tmp_path / "top" / "a@b").mkdir()
    (tmp_path / "top" / "file").touch()
    assert [*store.children(())] == []
    with pytest.raises(NotFound, match="there are no models here yet"):
        store.resolve(("half",))


def test_a_linked_model_is_served_and_not_written(store: Store, tmp_path: Path, make_model: Any) -> None:
    make_model(tmp_path / "elsewhere")
    (tmp_path / "top").mkdir()
    (tmp_path / "top" / "m").symlink_to(tmp_path / "elsewhere")
    model = store.model(("m",))
    assert model is not None and not model.versions["local"].writable


def test_a_single_model_is_the_top(tmp_path: Path, make_model: Any) -> None:
    store = Store([Layer(make_model(tmp_path / "m"), True)])
    assert store.single and store.writable_root is None
    target = store.resolve(("config.json",))
    assert target.model is not None and target.model.path == "/" and target.inner == ("config.json",)
    assert len([*store.models()]) == 1
    (tmp_path / "m" / "config.json").unlink()
    assert [*store.models()] == []
    with pytest.raises(NotFound, match="gone"):
        store.resolve(())


def test_refs_survive_a_round_trip(tmp_path: Path) -> None:
    assert read_refs(tmp_path) == Refs()
    refs = Refs({"prod": "2", "ü": "1"}, "1", "2", 7)
    write_refs(tmp_path / "new", refs)
    assert read_refs(tmp_path / "new") == refs


@pytest.mark.parametrize("content", ["{", "[]", '{"aliases": []}', '{"aliases": {"a": 1}}'])
def test_damaged_refs_are_a_problem_of_the_model(store: Store, tmp_path: Path, make_model: Any, content: str) -> None:
    folder = make_model(tmp_path / "top" / "m")
    (folder / "refs.json").write_text(content)
    with pytest.raises(BadModel) as caught:
        read_refs(folder)
    assert caught.value.file == "refs.json"
    model = store.model(("m",))
    assert model is not None and model.problem is not None and model.problem.file == "refs.json"
