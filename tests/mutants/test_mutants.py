"""The planted faults are up to date, and the tests catch them."""

from __future__ import annotations

import pytest
from mutants.run import ROOT, Mutant, caught, load

MUTANTS = load()
BY_NAME = {mutant.name: mutant for mutant in MUTANTS}


def test_there_are_many_of_them_under_names_of_their_own() -> None:
    assert len(BY_NAME) == len(MUTANTS) >= 35


@pytest.mark.parametrize("name", BY_NAME)
def test_each_changes_something_that_is_there(name: str) -> None:
    mutant = BY_NAME[name]
    compile(mutant.planted(), mutant.file, "exec")
    assert mutant.old != mutant.new
    for test in mutant.tests:
        assert (ROOT / test.partition("::")[0]).exists(), test


@pytest.mark.slow
@pytest.mark.parametrize("name", BY_NAME)
def test_each_is_caught(name: str) -> None:
    assert caught(BY_NAME[name])


@pytest.mark.slow
def test_a_change_that_changes_nothing_survives() -> None:
    ledger = "kernel/ledger.py"
    first = (ROOT / ledger).read_text().partition("\n")[0]
    assert not caught(Mutant("none", ledger, first, first + "\n", "nothing", ("tests/kernel/test_ledger.py",)))
