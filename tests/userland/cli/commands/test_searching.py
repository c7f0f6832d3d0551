"""What the shell says of a search."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import pytest

from llmos.syscalls.errors import BadArgument
from llmos.userland.cli.commands.searching import search_of, status, trials, without_trials
from llmos.userland.cli.commands.tuning import recipe_of
from llmos.userland.cli.parser import parse_line


def given(line: str) -> Namespace:
    _command, values = parse_line(f"tune m d o {line}")
    return values


def test_a_search_comes_from_a_file_and_from_options(tmp_path: Path) -> None:
    (tmp_path / "search.toml").write_text("trials = 5\nparallel = 2\n[space]\nrank = [2, 4]\nalpha = [8.0, 16.0]\n")
    over = "--search-over learning_rate=1e-5..1e-2:log --search-over rank=4..16 --search-over schedule=linear,cosine"
    made = recipe_of(given(f"--search {tmp_path}/search.toml {over} --trials 9 --seconds 60")).search
    assert made == {
        "trials": 9, "parallel": 2, "seconds": 60.0,
        "space": {
            "learning_rate": {"low": 1e-5, "high": 1e-2, "log": True}, "rank": {"low": 4, "high": 16},
            "schedule": ["linear", "cosine"], "alpha": [8.0, 16.0],
        },
    }  # fmt: skip
    (tmp_path / "recipe.toml").write_text("[search]\ntrials = 3\n[search.space]\nrank = [2, 4]\n")
    made = recipe_of(given(f"--recipe {tmp_path}/recipe.toml --parallel 3")).search
    assert made == {"trials": 3, "parallel": 3, "space": {"rank": [2, 4]}}
    assert recipe_of(given("")).search == {} and search_of(given(""), {}) == {}


@pytest.mark.parametrize("pair", ["rank", "=1,2", "rank=", "rank=1..2:linear"])
def test_what_cannot_be_tried_is_refused(pair: str) -> None:
    with pytest.raises(BadArgument, match=r"NAME=LOW\.\.HIGH"):
        search_of(given(f"--search-over {pair}"), {})


def test_trials_are_a_table_with_the_best_first() -> None:
    rows = [
        {"number": 0, "parameters": {"rank": 4, "learning_rate": 1e-5}, "state": "pruned", "value": 2.0, "steps": 3,
         "seconds": 0.51},
        {"number": 1, "parameters": {"rank": 8}, "state": "complete", "value": 1.23456, "steps": 9, "seconds": 1.5},
        {"number": 2, "parameters": {"rank": 8}, "state": "failed", "value": None, "steps": 0, "seconds": 0.0,
         "error": "no layers"},
    ]  # fmt: skip
    columns, made = trials({"trials": rows, "best": 1})
    assert columns == ("Trial", "State", ">learning_rate", ">rank", ">Value", ">Steps", ">Seconds", "Error")
    assert made == [
        ("1 *", "complete", "", "8", "1.235", 9, "1.5", ""), ("0", "pruned", "1e-05", "4", "2", 3, "0.5", ""),
        ("2", "failed", "", "8", "", 0, "0.0", "no layers"),
    ]  # fmt: skip
    assert trials({})[1] == [] and without_trials({"trials": rows, "best": 1, "method": "lora"}) == {"method": "lora"}


def test_how_far_a_search_is() -> None:
    assert list(status({"done": 3, "total": 9})) == []
    assert list(status({"trials": 8.0, "trials_done": 3.0})) == ["3 of 8 trials"]
    assert list(status({"trials": 8.0, "trials_done": 3.0, "best": 1.5})) == ["3 of 8 trials", "best 1.5"]
