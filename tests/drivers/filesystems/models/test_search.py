from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from llmos.drivers.filesystems.models.filesystem import ModelsFileSystem
from llmos.drivers.filesystems.models.index import Index
from llmos.drivers.filesystems.models.indexing import Indexer
from llmos.drivers.filesystems.models.search import Wanted, search
from llmos.syscalls.errors import BadArgument, NotFound, NotSupported

CARD = b"""---
license: apache-2.0
language: [en, de]
tags: [chat]
---
A fox that answers politely.
"""


@pytest.fixture
def system(models: Any, commit: Any) -> ModelsFileSystem:
    """Three models; one of them has two versions, and an adapter."""
    found: ModelsFileSystem = models()
    commit(found, "/acme/fox", {"created": "2026-01-01", "metrics": {"accuracy": 0.5}}, files={"README.md": CARD})
    commit(found, "/acme/fox", {"created": "2026-01-02", "metrics": {"accuracy": 0.7}}, files={"README.md": CARD})
    commit(found, "/bert", {
        "created": "2026-03-01", "architecture": "BertForMaskedLM", "tasks": ["fill-mask"], "licence": "MIT",
        "origin": "hf:someone/bert", "context": 512, "dtype": "bfloat16",
    }, files={"extra": b"x" * 5000})  # fmt: skip
    parents = [{"path": "/models/acme/fox", "version": "1", "how": "adapter"}]
    commit(found, "/fox-tuned", {"created": "2026-02-01", "parents": parents}, files={
        "adapter_config.json": b"{}", "adapter_model.safetensors": (2).to_bytes(8, "little") + b"{}",
        "config.json": None, "model.safetensors": None,
    })  # fmt: skip
    return found


def paths(system: ModelsFileSystem, query: str = "", limit: int = 9, at: str = "/", **filters: Any) -> list[str]:
    return [hit.path for hit in system.search(at, query, filters, limit)]


def test_without_words_all_are_listed_newest_first(system: ModelsFileSystem) -> None:
    assert paths(system) == ["/bert", "/fox-tuned", "/acme/fox"]
    assert paths(system, "  ") == paths(system) and paths(system, limit=1) == ["/bert"]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("fox", ["/acme/fox", "/fox-tuned"]),
        ("FÓX", ["/acme/fox", "/fox-tuned"]),
        ("acme/fox", ["/acme/fox"]),
        ("polite fox", ["/acme/fox"]),
        ("fox zebra", ["/acme/fox", "/fox-tuned"]),
        ("tuned", ["/fox-tuned"]),
        ("masked", []),
        ("fill mask", ["/bert"]),
        ("chat", ["/acme/fox"]),
        ("zebra", []),
        ('"; DROP TABLE version; --', []),
        ("fox NOT polite", ["/acme/fox", "/fox-tuned"]),
        ("***", []),
    ],
)
def test_words_are_looked_for_in_names_tags_tasks_and_cards(
    system: ModelsFileSystem, query: str, found: list[str]
) -> None:
    assert paths(system, query) == found


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({"task": "fill-mask"}, ["/bert"]),
        ({"task": ["fill-mask", "text-generation"]}, ["/bert", "/acme/fox"]),
        ({"architecture": "bert"}, ["/bert"]),
        ({"architecture": ["bertfor", "adapter"]}, ["/bert", "/fox-tuned"]),
        ({"licence": "Apache-2.0"}, ["/acme/fox"]),
        ({"language": "de", "licence": ["mit", "apache-2.0"]}, ["/acme/fox"]),
        ({"tag": "chat"}, ["/acme/fox"]),
        ({"dtype": "BFLOAT16"}, ["/bert"]),
        ({"origin": "someone"}, ["/bert"]),
        ({"kind": "adapter"}, ["/fox-tuned"]),
        ({"max_bytes": 4000}, ["/fox-tuned", "/acme/fox"]),
        ({"min_bytes": 5000}, ["/bert"]),
        ({"min_parameters": 9, "max_parameters": 9}, ["/bert", "/acme/fox"]),
        ({"min_context": 257}, ["/bert"]),
        ({"parent": "acme/fox"}, ["/fox-tuned"]),
        ({"parent": "/models/acme/fox"}, ["/fox-tuned"]),
        ({"parent": "/acme/fox/"}, ["/fox-tuned"]),
        ({"parent": "/bert"}, []),
        ({"all_versions": True, "licence": "apache-2.0"}, ["/acme/fox", "/acme/fox@1"]),
        ({"sort": "name"}, ["/acme/fox", "/bert", "/fox-tuned"]),
        ({"sort": "size"}, ["/fox-tuned", "/acme/fox", "/bert"]),
        ({"sort": "new"}, ["/bert", "/fox-tuned", "/acme/fox"]),
        ({"sort": "quality"}, ["/acme/fox", "/bert", "/fox-tuned"]),
    ],
)
def test_filters(system: ModelsFileSystem, filters: dict[str, Any], found: list[str]) -> None:
    assert paths(system, **filters) == found


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("tasks", "x"), ("task", []), ("task", 5), ("task", ["a", 5]), ("max_bytes", "4 GiB"), ("max_bytes", -1),
        ("max_bytes", True), ("all_versions", 1), ("sort", "beauty"), ("parent", {}),
    ],
)  # fmt: skip
def test_filters_that_are_none(system: ModelsFileSystem, name: str, value: Any) -> None:
    with pytest.raises(BadArgument) as caught:
        paths(system, **{name: value})
    assert caught.value.name == name


def test_words_and_another_order_go_together(system: ModelsFileSystem) -> None:
    assert paths(system, "fox", sort="new") == ["/fox-tuned", "/acme/fox"]


def test_what_was_measured_counts(system: ModelsFileSystem) -> None:
    for name, speed in (("fox-tuned", 5.0), ("acme/fox", 50.0)):
        told = {"name": name, "version": "1", "device": "cpu0", "values": {"tokens_per_s": speed}}
        assert system.control("measure", told)["device"] == "cpu0"
    assert paths(system, sort="speed", all_versions=True)[:2] == ["/acme/fox@1", "/fox-tuned"]
    [hit] = system.search("/fox-tuned", "", {}, 3)
    assert hit.fields["measured"] == {"cpu0": {"tokens_per_s": 5.0}}
    assert hit.reason.endswith("5 tokens/s measured on cpu0")
    assert system.stat("/fox-tuned").fields["measured"] == {"cpu0": {"tokens_per_s": 5.0}}
    system.remove("/fox-tuned")
    assert paths(system, sort="speed") == ["/acme/fox", "/bert"]


def test_a_search_stays_below_its_path(system: ModelsFileSystem, commit: Any) -> None:
    commit(system, "/acme2")
    assert paths(system, at="/acme") == ["/acme/fox"]
    assert paths(system, at="/acme/fox@1") == ["/acme/fox@1"]
    assert paths(system, at="/acme/fox", all_versions=True) == ["/acme/fox", "/acme/fox@1"]
    with pytest.raises(NotFound):
        paths(system, at="/none")
    with pytest.raises(NotSupported, match="file of a model"):
        paths(system, at="/bert/config.json")


def test_a_hit_says_what_it_is_and_why(system: ModelsFileSystem) -> None:
    [hit] = system.search("/", "polite", {"task": "text-generation", "max_bytes": 1 << 20}, 1)
    assert hit.fields["licence"] == "apache-2.0" and hit.fields["languages"] == ["en", "de"]
    assert (hit.fields["version"], hit.fields["measured"]) == ("2", {"": {"quality": 0.7}})
    size = hit.fields["bytes"]
    assert hit.reason == (f'"polite" in its card; task text-generation; at most 1.0 MiB; {size} B; quality 0.7')
    assert hit.score > 1


def test_without_fts5_words_are_found_all_the_same(system: ModelsFileSystem, tmp_path: Path) -> None:
    wanted = {query: sorted(paths(system, query)) for query in ("fox", "polite fox", "fox zebra", "zebra")}
    with closing(Index(tmp_path / "plain.db", fts5=False)) as index:
        Indexer(system._store, system._describer, index).sync()
        for query, found in wanted.items():
            assert sorted(hit.path for hit in search(index, query, Wanted("/", "", {}), 9)) == found, query


def test_an_index_that_is_behind_says_so(system: ModelsFileSystem) -> None:
    paths(system)
    [first, *_] = search(system._index, "", Wanted("/", "", {}), 9, behind=7)
    assert "7 folders are still to be indexed" in first.reason
