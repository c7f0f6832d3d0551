"""What is kept of each tuning run, while it lives and afterwards: one JSON file each, the oldest of them forgotten.

A file is replaced as a whole when the run begins, when its state changes, with each checkpoint and at its end. So what
it says holds for the checkpoint that the run would go on from.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from llmos.syscalls.types import LoadOptions, TuneRecipe

KEPT = 200
"""Runs that have ended, of which a record is kept."""
POINTS = 512
"""Points of a curve; of a longer one every second is dropped, but those of an evaluation."""
ENDED = frozenset({"done", "failed", "cancelled"})
_SUFFIX = ".json"


class Place(msgspec.Struct, kw_only=True):
    """Something in a file system: `path` is what the program calls it, `inner` what its driver does."""

    path: str
    filesystem: str
    source: str
    inner: str


class Base(msgspec.Struct, kw_only=True):
    """A model of a run, and how to load it again; an adapter beside the one that is tuned."""

    name: str
    version: str
    device: str
    place: Place
    options: LoadOptions
    adapter: bool = False


class Run(msgspec.Struct, kw_only=True):
    """One run: what was asked for, how far it is, and what came of it."""

    id: str
    owner: str
    ambient: bool = False
    """Whether the program that began it could do what its user may, as one that another has spawned cannot."""
    state: str = "running"
    created: float
    ended: float = 0.0
    base: Base
    others: dict[str, Base] = {}
    """Models that the recipe names, by their names there."""
    recipe: TuneRecipe
    data: Place
    out: Place
    work_class: str
    code: str
    """Version of the system that ran it."""
    step: int = 0
    steps: int = 0
    tokens: int = 0
    facts: dict[str, Any] = {}
    values: dict[str, float] = {}
    """The newest of each."""
    curve: list[dict[str, float]] = []
    """By `step`, with the time `at`."""
    version: str = ""
    """Of the result."""
    promoted: bool = True
    """Whether it was good enough to be what its name means."""
    error: dict[str, Any] | None = None

    def told(self, step: int, at: float, values: Mapping[str, float]) -> None:
        """It has come to a step; what was told of later ones before a crash is forgotten."""
        finite = {name: float(value) for name, value in values.items() if math.isfinite(value)}
        same: dict[str, float] = {}
        while self.curve and self.curve[-1]["step"] >= step:
            same = self.curve.pop()
        known = same if same.get("step") == step else {}
        self.curve.append({**known, **finite, "step": step, "at": at})
        self.step, self.values = step, {**self.values, **finite}
        if len(self.curve) > POINTS:
            last = len(self.curve) - 1
            self.curve = [p for n, p in enumerate(self.curve) if n % 2 == 0 or n == last or "eval_loss" in p]


class Runs:
    """The records in a folder, which is made when the first is written."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        names = (path.stem for path in folder.glob(f"*{_SUFFIX}"))
        self.names = dict.fromkeys(sorted(names, key=self._age))
        """Of all that there are, the oldest first."""

    def write(self, run: Run) -> list[str]:
        """Keep a record as it is now; the names of old ones that had to go. Raises OSError: nothing has changed."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        part = self._folder / f"{run.id}.part"
        with part.open("wb") as file:
            file.write(msgspec.json.encode(run))
            file.flush()
            os.fsync(file.fileno())
        part.replace(self._file(run.id))
        self.names.setdefault(run.id)
        return self._forget_old()

    def text(self, name: str) -> bytes:
        """A record as JSON; of one that cannot be read nothing."""
        try:
            return self._file(name).read_bytes()
        except OSError:
            return b"{}"

    def read(self, name: str) -> Run | None:
        """A record; None where there is none that can be read."""
        try:
            return msgspec.json.decode(self.text(name), type=Run)
        except msgspec.DecodeError:
            return None

    def unfinished(self) -> list[Run]:
        """The runs that had not ended when the kernel did, the oldest first."""
        found = [self.read(name) for name in self.names]
        return [run for run in found if run is not None and run.state not in ENDED]

    def _forget_old(self) -> list[str]:
        """Those above the bound; what has not ended is among the newest, or is brought back too seldom to matter."""
        old = list(self.names)[: max(len(self.names) - KEPT, 0)]
        for name in old:
            self._file(name).unlink(missing_ok=True)
            del self.names[name]
        return old

    def _file(self, name: str) -> Path:
        return self._folder / f"{name}{_SUFFIX}"

    def _age(self, name: str) -> float:
        return self._file(name).stat().st_mtime
