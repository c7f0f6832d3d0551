"""The options `tasks` and `mixing`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from llmos.syscalls.errors import BadArgument

from ..checked import Checked

FIELDS: Mapping[str, str] = {
    "files": "names of files of the data, with * and ?", "objective": "what is learned; the recipe's by default",
    "weight": "of its loss",
}  # fmt: skip


@dataclass(frozen=True)
class Task:
    """One of several tasks that are learned together.

    Attributes:
        files: names of the files of the data that have its rows, with `*` and `?`.
        objective: what is learned of them; empty for the recipe's.
        weight: of its loss beside those of the others.
    """

    name: str
    files: tuple[str, ...]
    objective: str = ""
    weight: float = 1.0


def tasks_of(options: Checked, objectives: tuple[str, ...]) -> tuple[Task, ...]:
    """The tasks that the options of a recipe name, in their order; none where they name none. Raises BadArgument."""
    if "tasks" not in options:
        return ()
    given = options.value("tasks")
    if not isinstance(given, Mapping) or not given:
        want = "a map of names to maps"
        raise BadArgument(f"tasks is {given!r}, expected {want}", name="tasks", got=repr(given)[:80], want=want)
    every = Checked("tune", {str(name): "" for name in given}, {str(name): value for name, value in given.items()})
    return tuple(_task(name, every.within_map(name, FIELDS), objectives) for name in map(str, given))


def _task(name: str, given: Checked, objectives: tuple[str, ...]) -> Task:
    if not name.isidentifier():
        want = "letters, digits and _"
        raise BadArgument(f"{name!r} is no name of a task; it takes {want}", name="tasks", got=name, want=want)
    objective = given.choice("objective", "", ("", *objectives))
    return Task(name, tuple(given.texts("files")), objective, given.more("weight", 1.0))
