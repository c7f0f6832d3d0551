"""`docs/guarantees.md`: every test that it names exists, and every promise names one."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
ELSEWHERE = "## What is not promised"


def promises(root: Path) -> list[str]:
    """The items of the page, before what is not promised."""
    text = (root / "docs/guarantees.md").read_text().partition(ELSEWHERE)[0]
    return re.split(r"^- ", text, flags=re.MULTILINE)[1:]


def names_in(path: Path) -> set[str]:
    """Test functions, and names that a state machine's test case was given."""
    found = set[str]()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign):
            found.update(target.id for target in node.targets if isinstance(target, ast.Name))
    return {name for name in found if name.lower().startswith("test")}


def test_every_promise_names_its_tests(root: Path) -> None:
    without = [promise for promise in promises(root) if not NAMED.search(promise)]
    assert without == []
    assert len(promises(root)) > 40


def test_the_named_tests_exist(root: Path) -> None:
    named = NAMED.findall((root / "docs/guarantees.md").read_text())
    missing = [f"{path}::{name}" for path, name in named if name not in names_in(root / path)]
    assert missing == []


def test_a_planted_name_is_missed(root: Path) -> None:
    assert "test_that_is_not_there" not in names_in(Path(__file__))
    assert "test_a_planted_name_is_missed" in names_in(Path(__file__))
    with pytest.raises(FileNotFoundError):
        names_in(root / "tests/system/test_nothing.py")


def test_every_system_test_shows_a_promise(root: Path) -> None:
    """A file of system tests that no promise names shows something that is not written down."""
    text = (root / "docs/guarantees.md").read_text()
    files = [*(root / "tests/system").glob("test_*.py"), *(root / "tests/fuzz").glob("test_*.py")]
    unnamed = [path.name for path in files if str(path.relative_to(root)) not in text and path != Path(__file__)]
    assert unnamed == []
