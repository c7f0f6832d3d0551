"""`docs/tasks.md`: every task and option is there as the engine has it, and every example runs."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from kinds_home import system_of_kinds
from sources import ROOT
from tiny_kinds import image_part, pictures, sound_part, sounds

from llmos.drivers.engine import causal, models, others, tasks

PAGE = (ROOT / "docs/tasks.md").read_text()
BLOCKS = re.findall(r"^## ([^\n]+)\n(?:(?!^## ).)*?^```python\n(.*?)^```", PAGE, re.S | re.M)


def offered() -> dict[str, dict[str, str]]:
    """Each task with the options of all classes that serve it."""
    found: dict[str, dict[str, str]] = {causal.TASK: {}} | {name: {} for name in models.TOKEN_TASKS}
    for module in pkgutil.iter_modules(tasks.__path__, f"{tasks.__name__}."):
        for _, each in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
            if isinstance(getattr(each, "options", None), Mapping) and isinstance(getattr(each, "name", None), str):
                found.setdefault(each.name, {}).update(each.options)
            if isinstance(getattr(each, "tasks", None), Mapping):
                for name, options in each.tasks.items():
                    found.setdefault(name, {}).update(options)
    return found


def section(task: str) -> str:
    found = re.search(rf"^## [^\n]*\b{re.escape(task)}\b[^\n]*\n(.*?)(?=^## |\Z)", PAGE, re.S | re.M)
    assert found, f"no section on {task}"
    return found[1]


@pytest.mark.parametrize("task", offered())
def test_each_task_has_its_section_with_its_options(task: str) -> None:
    assert f"`{task}`" in PAGE.partition("\n## ")[0]
    written = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|$", section(task), re.M))
    options = offered()[task]
    assert options.keys() <= written.keys()
    for name, meaning in options.items():
        assert meaning in re.findall(rf"^\| `{name}` \| (.*?) \|$", section(task), re.M)


def test_each_other_name_is_told() -> None:
    summary = PAGE.partition("\n## ")[0]
    for other, task in others.ALIASES.items():
        row = next(line for line in summary.splitlines() if f"[`{task}`]" in line)
        assert f"`{other}`" in row


def test_every_option_of_the_page_exists() -> None:
    every = {name for options in offered().values() for name in options}
    assert set(re.findall(r"^\| `(\w+)` \| [^`]", PAGE, re.M)) <= every
    assert len(offered()) >= 20


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with system_of_kinds(tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("site")) as made:
        yield made


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(("task", "code"), BLOCKS, ids=[task for task, _ in BLOCKS])
def test_each_example_runs(system: Any, task: str, code: str) -> None:
    picture, sound = bytes(image_part(pictures()[2]).data), bytes(sound_part(sounds()[0]).data)
    exec(compile(code, task, "exec"), {"system": system, "picture": picture, "sound": sound})


def test_most_tasks_have_an_example() -> None:
    assert len(BLOCKS) >= 13
