"""The command table is consistent with itself, and its examples are real commands."""

import re

import pytest

from llmos.userland.cli.command import COMMON, HELP_FLAGS, Command, Kind
from llmos.userland.cli.parser import parse_line
from llmos.userland.cli.table import COMMANDS, find_command, groups

EXAMPLES = [(command, line) for command in COMMANDS for line in command.examples]
every_command = pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)


def test_names_are_unique_and_found() -> None:
    names = [command.name for command in COMMANDS]
    assert len(names) == len(set(names))
    assert all(find_command(name) is not None for name in names)
    assert find_command("no-such-command") is None


def test_groups_hold_every_command_once() -> None:
    grouped = [command for commands in groups().values() for command in commands]
    assert sorted(command.name for command in grouped) == sorted(command.name for command in COMMANDS)


@every_command
def test_every_command_has_help_and_an_example(command: Command) -> None:
    assert command.help and not command.help.endswith(".")
    assert command.examples


@every_command
def test_flags_are_well_formed_and_unique(command: Command) -> None:
    flags = [flag for option in (*command.options, *COMMON) for flag in option.flags] + list(HELP_FLAGS)
    assert len(flags) == len(set(flags))
    assert all(re.fullmatch(r"-[a-z]|--[a-z]+(-[a-z]+)*", flag) for flag in flags)


@every_command
def test_attribute_names_do_not_collide(command: Command) -> None:
    names = [argument.name for argument in command.arguments]
    names += [option.name for option in (*command.options, *COMMON)]
    assert len(names) == len(set(names))
    assert {name for name, _ in command.harmless} <= set(names)


@every_command
def test_choices_are_given_exactly_where_needed(command: Command) -> None:
    for item in (*command.arguments, *command.options):
        assert bool(item.choices) is (item.kind is Kind.CHOICE), item


@every_command
def test_only_the_last_argument_may_be_left_out_or_repeated(command: Command) -> None:
    open_ended = [index for index, item in enumerate(command.arguments) if item.many]
    assert all(index == len(command.arguments) - 1 for index in open_ended)
    required = [item.required for item in command.arguments]
    assert required == sorted(required, reverse=True)


@pytest.mark.parametrize(("command", "line"), EXAMPLES, ids=lambda value: value if isinstance(value, str) else "")
def test_every_example_parses_to_its_command(command: Command, line: str) -> None:
    assert parse_line(line)[0] is command
