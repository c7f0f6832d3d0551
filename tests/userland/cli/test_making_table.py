"""The commands that make models; what holds for all of the table is in `test_table`."""

from __future__ import annotations

from llmos.syscalls.types import TuneRecipe
from llmos.userland.cli.commands.tuning import FIELDS
from llmos.userland.cli.making_table import MAKING, TUNING


def test_fields_of_a_recipe_have_options_of_their_name() -> None:
    tune = next(command for command in TUNING if command.name == "tune")
    flags = {flag for option in tune.options for flag in option.flags}
    assert {f"--{name.replace('_', '-')}" for name in FIELDS} <= flags
    assert set(FIELDS) <= set(TuneRecipe.__struct_fields__)


def test_what_makes_models_is_not_taught() -> None:
    assert not any(command.taught for command in (*MAKING, *TUNING))
