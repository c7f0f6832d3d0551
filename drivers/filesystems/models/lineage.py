"""Where a version comes from and what was made from it.

A manifest's `parents` names each origin by its path in this file system or under /models; `how` is the relation (such
as adapter, finetune, merge), `recipe` and `data_sha256` how to make it again. What no path here matches, such as a name
of the hub, is shown and followed no further.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from llmos.syscalls.errors import NotFound

from .index import Parent
from .store import Model

MOUNTED = "models"
"""Where this file system is usually mounted."""
DEPTH = 32
Key = tuple[str, str]
"""Path and version of a model."""


def resolve(parent: Parent, find: Callable[[str], Model | None]) -> Key | None:
    """The version that a parent entry means, or None when it is not stored here."""
    names = [name for name in parent.path.split("/") if name]
    if not names:
        return None
    last, _, selector = names[-1].partition("@")
    for first in (0, 1) if names[0] == MOUNTED else (0,):
        inner = [*names[first:-1], last]
        model = find("/" + "/".join(inner)) if first < len(names) and 1 <= len(inner) <= 2 else None
        if model is not None:
            try:
                return model.path, model.choose(parent.version or selector).name
            except NotFound:
                return None
    return None


def needed_by(kept: Iterable[Key], parents: Mapping[Key, Iterable[Key]]) -> set[Key]:
    """The kept versions and all that they were made from, however far back."""
    found: set[Key] = set()
    left = [*kept]
    while left:
        key = left.pop()
        if key not in found:
            found.add(key)
            left.extend(parents.get(key, ()))
    return found


class Relatives:
    """Who is related to whom, from an index that was just renewed."""

    def __init__(self, db: sqlite3.Connection, find: Callable[[str], Model | None]) -> None:
        self._db, self._find = db, find

    def ancestors(self, path: str, version: str, parents: Sequence[Parent]) -> list[dict[str, Any]]:
        """All that a version with these parents was made from, nearest first; `stored` is where it lies here."""
        found: list[dict[str, Any]] = []
        seen = {(path, version)}
        level = [(path, version)]
        for distance in range(1, DEPTH + 1):
            above: list[Key] = []
            for child in level:
                for parent in parents if distance == 1 else self._parents(child):
                    at = resolve(parent, self._find)
                    if at is not None and at in seen:
                        continue
                    shown = {name: value for name, value in vars(parent).items() if value}
                    found.append({**shown, "distance": distance, "stored": "" if at is None else f"{at[0]}@{at[1]}"})
                    if at is not None:
                        seen.add(at)
                        above.append(at)
            level = above
        return found

    def children(self, path: str, version: str) -> list[str]:
        """What says that it was made from this version, as `path@version`, in order."""
        name = path.lstrip("/")
        rows = self._db.execute(
            "SELECT v.path AS child, v.version AS at, p.path AS path, p.version AS version FROM parent p "
            "JOIN version v ON v.id = p.version_id WHERE instr(p.path, ?)", (name,)
        )  # fmt: skip
        mine = [row for row in rows if resolve(Parent(row["path"], row["version"]), self._find) == (path, version)]
        return sorted({f"{row['child']}@{row['at']}" for row in mine})

    def measured(self, path: str, version: str) -> dict[str, dict[str, float]]:
        """What past runs showed, by device and name."""
        found: dict[str, dict[str, float]] = {}
        for device, name, value in self._db.execute(
            "SELECT device, name, value FROM measure WHERE path = ? AND version = ?", (path, version)
        ):
            found.setdefault(device, {})[name] = value
        return found

    def _parents(self, key: Key) -> list[Parent]:
        rows = self._db.execute(
            "SELECT p.path, p.version, p.how, p.recipe, p.data_sha256 FROM parent p JOIN version v "
            "ON v.id = p.version_id WHERE v.path = ? AND v.version = ?", key
        )  # fmt: skip
        return [Parent(*row) for row in rows]
