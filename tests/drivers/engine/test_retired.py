"""A version of an adapter that was replaced stays as long as a request uses it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from llmos.drivers.engine.retired import RetiredVersions


class Store:
    """What happened to versions, by name."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def retire(self, name: str) -> None:
        self.said.append(f"retire {name}")

    def drop(self, name: str) -> None:
        self.said.append(f"drop {name}")


def entry(version: str, *requests: str) -> Any:
    running = [SimpleNamespace(id=id) for id in requests]
    return SimpleNamespace(adapter=version, running=running, requests=lambda: running)


def test_it_is_dropped_when_its_last_request_has_ended() -> None:
    versions, store, under = RetiredVersions(), Store(), entry("v1", "a", "b")
    adapters: Any = store
    versions.retire(under, adapters)
    versions.drop()
    assert store.said == ["retire v1"]
    under.running[:] = [SimpleNamespace(id="b"), SimpleNamespace(id="c")]
    versions.drop()
    assert store.said == ["retire v1"], "one of its own is left"
    under.running[:] = [SimpleNamespace(id="c")]
    versions.drop()
    assert store.said == ["retire v1", "drop v1"] and len(versions) == 0
    versions.drop()
    assert len(store.said) == 2


def test_each_version_waits_for_its_own_requests() -> None:
    versions, store = RetiredVersions(), Store()
    adapters: Any = store
    versions.retire(entry("v1", "a"), adapters)
    versions.retire(entry("v2"), adapters)
    versions.drop()
    assert store.said == ["retire v1", "retire v2", "drop v2"] and len(versions) == 1
    versions.clear()
    assert len(versions) == 0 and store.said[-1] == "drop v2"
