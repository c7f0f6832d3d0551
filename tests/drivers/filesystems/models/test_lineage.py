from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llmos.drivers.filesystems.models.filesystem import ModelsFileSystem
from llmos.drivers.filesystems.models.index import Parent
from llmos.drivers.filesystems.models.lineage import needed_by, resolve


def made_from(path: str, version: str = "", **more: str) -> dict[str, Any]:
    return {"parents": [{"path": path, "version": version, **more}]}


@pytest.fixture
def system(models: Any, commit: Any) -> ModelsFileSystem:
    """base@1 and 2 <- org/tuned@1 <- merged@1, which also comes from the hub."""
    found: ModelsFileSystem = models()
    commit(found, "/base", made_from("Someone/Far", how="finetune"))
    commit(found, "/base")
    recipe = {"how": "adapter", "recipe": "lora r=8", "data_sha256": "ab" * 32}
    commit(found, "/org/tuned", made_from("/models/base", "1", **recipe))
    commit(found, "/merged", {"parents": [
        {"path": "org/tuned@latest", "how": "merge"}, {"path": "Hub/Only", "version": "", "how": "merge"},
    ]})  # fmt: skip
    return found


def test_where_a_version_comes_from(system: ModelsFileSystem) -> None:
    assert system.stat("/merged").fields["lineage"] == [
        {"path": "org/tuned@latest", "how": "merge", "distance": 1, "stored": "/org/tuned@1"},
        {"path": "Hub/Only", "how": "merge", "distance": 1, "stored": ""},
        {"path": "/models/base", "version": "1", "how": "adapter", "recipe": "lora r=8", "data_sha256": "ab" * 32,
         "distance": 2, "stored": "/base@1"},
        {"path": "Someone/Far", "how": "finetune", "distance": 3, "stored": ""},
    ]  # fmt: skip


def test_what_was_made_from_a_version(system: ModelsFileSystem) -> None:
    assert system.stat("/base@1").fields["children"] == ["/org/tuned@1"]
    assert system.stat("/org/tuned").fields["children"] == ["/merged@1"]
    for path in ("/base@2", "/merged"):
        assert "children" not in system.stat(path).fields
    system.remove("/org/tuned")
    assert "children" not in system.stat("/base@1").fields
    assert system.stat("/merged").fields["lineage"][0]["stored"] == ""


def test_a_circle_ends(models: Any, commit: Any) -> None:
    system = models()
    commit(system, "/a", made_from("/b"))
    commit(system, "/b", made_from("/a"))
    assert [entry["path"] for entry in system.stat("/a").fields["lineage"]] == ["/b"]


@pytest.mark.parametrize(
    ("path", "version", "found"),
    [
        ("/base", "1", ("/base", "1")), ("models/base", "", ("/base", "2")), ("base@1", "", ("/base", "1")),
        ("/base", "9", None), ("/none", "", None), ("", "", None), ("/", "", None), ("/models", "", None),
        ("/a/b/c/d", "", None), ("/models/org/tuned", "", ("/org/tuned", "1")),
    ],
)  # fmt: skip
def test_a_parent_is_found_by_its_path_here_or_under_models(
    system: ModelsFileSystem, path: str, version: str, found: Any
) -> None:
    assert resolve(Parent(path, version), system._find) == found


KEYS = st.sampled_from([("/m", str(number)) for number in range(6)])


@given(kept=st.sets(KEYS), parents=st.dictionaries(KEYS, st.lists(KEYS, max_size=3)))
def test_what_is_needed_is_closed_and_no_larger_than_it_must_be(kept: Any, parents: Any) -> None:
    found = needed_by(kept, parents)
    assert kept <= found
    assert all(parent in found for key in found for parent in parents.get(key, ()))
    reached = set(kept)
    for _ in range(6):
        reached |= {parent for key in reached for parent in parents.get(key, ())}
    assert found == reached
