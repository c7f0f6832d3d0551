"""Every command and every call has a page, made from its declaration."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmos.syscalls.errors import NotFound
from llmos.syscalls.spec import SYSCALLS
from llmos.userland.cli.help import overview, page
from llmos.userland.cli.command import Command
from llmos.userland.cli.table import COMMANDS


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_a_page_names_every_argument_option_choice_and_example(command: Command) -> None:
    text = page(command.name)
    for argument in command.arguments:
        assert argument.name.upper() in text and argument.help in text
    for option in command.options:
        assert all(flag in text for flag in option.flags)
    for item in (*command.arguments, *command.options):
        assert ", ".join(item.choices) in text
    assert all(f"llmos {example}" in text for example in command.examples)
    assert command.name in overview()


@pytest.mark.parametrize("name", sorted(SYSCALLS))
def test_a_call_has_its_manual_page(name: str) -> None:
    assert f"    {name}" in page(name) and "SYNOPSIS" in page(name)


def test_an_unknown_name_gets_a_hint() -> None:
    with pytest.raises(NotFound, match="did you mean load"):
        page("loaad")
    with pytest.raises(NotFound, match="help lists them"):
        page("qqqqqq")


def test_the_page_of_the_shell_names_every_command(root: Path) -> None:
    text = (root / "docs/shell.md").read_text()
    missing = [command.name for command in COMMANDS if f"`{command.name}" not in text]
    assert not missing
