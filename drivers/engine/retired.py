"""Versions of adapters that were replaced, kept as long as requests use them."""

from __future__ import annotations

from dataclasses import dataclass

from .lora.store import LoraStore
from .models import Entry


@dataclass(frozen=True)
class Retired:
    """A version, and the requests that still use it."""

    entry: Entry
    adapters: LoraStore
    name: str
    requests: frozenset[str]


class RetiredVersions:
    """All of a device."""

    def __init__(self) -> None:
        self._kept: list[Retired] = []

    def __len__(self) -> int:
        return len(self._kept)

    def retire(self, entry: Entry, adapters: LoraStore) -> None:
        """The version that an adapter has now is about to be replaced."""
        adapters.retire(entry.adapter)
        requests = frozenset(request.id for request in entry.requests())
        self._kept.append(Retired(entry, adapters, entry.adapter, requests))

    def drop(self) -> None:
        """Forget the versions whose requests have ended."""
        for retired in list(self._kept):
            if retired.requests.isdisjoint(request.id for request in retired.entry.requests()):
                retired.adapters.drop(retired.name)
                self._kept.remove(retired)

    def clear(self) -> None:
        """Forget all, with what they belong to."""
        self._kept.clear()
