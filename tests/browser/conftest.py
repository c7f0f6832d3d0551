"""Stages for the browser: one for each module, or one for a test that kills the kernel."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from browser.stage import Stage, made_up_system, real_system, why_not

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here is slow, and skipped with the reason where there is no browser."""
    reason = why_not()
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.slow)
            item.add_marker(pytest.mark.timeout(400))
            if reason:
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="module")
def made_up() -> Iterator[Stage]:
    """The gateway that makes its answers up."""
    with made_up_system() as stage:
        yield stage


@pytest.fixture(scope="module")
def real() -> Iterator[Stage]:
    """A real kernel behind a real gateway."""
    with real_system() as stage:
        yield stage


@pytest.fixture
def mortal() -> Iterator[Stage]:
    """The same for one test, which kills it."""
    with real_system() as stage:
        yield stage
