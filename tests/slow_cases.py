"""Cases of one test of which some run always and the others with the slow tests."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import pytest


def slow_but(quick: Collection[Any], cases: Iterable[Any]) -> list[Any]:
    """All cases as parameters, those that are not among `quick` marked slow. A tuple is one case of several values."""
    given = list(cases)
    missing = [case for case in quick if case not in given]
    assert not missing, f"not among the cases: {missing}"
    return [
        case if case in quick else pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=pytest.mark.slow)
        for case in given
    ]
