"""Typed lines become commands with checked values; mistakes become sentences."""

import contextlib
import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmos.userland.cli.parser import HelpRequested, UsageError, changes_state, parse_line, parse_words, usage
from llmos.userland.cli.command import Command
from llmos.userland.cli.table import COMMANDS, find_command


def values_of(line: str) -> dict[str, object]:
    return vars(parse_line(line)[1])


def test_values_are_converted_and_absent_options_are_none() -> None:
    values = values_of("load /models/acme/fox-7 --device cpu0 --max-context 512 --keep-alive 10m --pin")
    assert values["model"] == "/models/acme/fox-7"
    assert (values["device"], values["max_context"], values["keep_alive"]) == ("cpu0", 512, 600.0)
    assert values["pin"] is True and values["replace"] is False and values["dtype"] is None


def test_text_is_joined_and_options_may_stand_between() -> None:
    values = values_of("run tiny --seed 3 what is --max-tokens 5 a list")
    assert values["prompt"] == "what is a list"
    assert (values["seed"], values["max_tokens"], values["model"]) == (3, 5, "tiny")
    assert values_of("run tiny")["prompt"] is None


def test_quotes_follow_the_shell() -> None:
    assert values_of('run tiny "say \'hi\' twice"')["prompt"] == "say 'hi' twice"


def test_options_with_many_values_are_collected() -> None:
    assert values_of("run tiny --stop a --stop b")["stop"] == ["a", "b"]


def test_negative_numbers_are_values() -> None:
    assert values_of("priority t-17 -5")["value"] == -5


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("250ms", 0.25), ("30s", 30), ("1.5m", 90), ("2h", 7200), ("1d", 86400), ("forever", math.inf)],
)
def test_durations_become_seconds(text: str, seconds: float) -> None:
    assert values_of(f"keep-alive tiny {text}")["duration"] == seconds


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("", "no command"),
        ("lod tiny", "Did you mean load"),
        ("xyzzy", "Type help"),
        ('run "tiny', "quotation"),
        ("load", "Usage: load MODEL [options]"),
        ("run", "required: MODEL. "),
        ("load tiny --nope", "--nope"),
        ("load tiny --dtype int3", "not one of float32"),
        ("ps now", "unrecognized"),
        ("logs -n 0", "1 or more"),
        ("logs -n ten", "not a whole number"),
        ("run tiny -t warm", "not a number"),
        ("run tiny -t nan", "not a finite number"),
        ("keep-alive tiny 10", "not a duration"),
        ("wait t-1 --timeout -2", "negative"),
        ("serve --http localhost", "HOST:PORT"),
        ("serve --http :80", "HOST:PORT"),
        ("serve --http a:70000", "HOST:PORT"),
        ("driver poke cpu", "not one of check"),
        ("mount ~/hub", "mount needs a source and a path"),
        ("load tiny --dev cpu0", "there is no option --dev; did you mean --device? Usage: load MODEL [options]"),
        ("run tiny hello --tempreature=0.5", "did you mean --temperature?"),
        ("run tiny hello --temprature 0.5", "did you mean --temperature?"),
        ("umount /x --xyz", "there is no option --xyz; it has --json. Usage"),
        ("ps --jsn", "did you mean --json?"),
    ],
)
def test_mistakes_are_explained(line: str, says: str) -> None:
    with pytest.raises(UsageError, match=re.escape(says)):
        parse_line(line)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_every_command_offers_help_and_json(command: Command) -> None:
    for flag in ("-h", "--help"):
        with pytest.raises(HelpRequested) as caught:
            parse_words([command.name, flag])
        assert caught.value.command is command
    words = [*command.examples[0].split(), "--json"]
    assert vars(parse_words(words)[1])["json"] is True


@pytest.mark.parametrize(
    ("line", "changes"),
    [
        ("ps", False), ("load tiny", True), ("load tiny --dry-run", False), ("mount", False),
        ("mount ~/hub /models/hub", True), ("driver check null", False), ("driver stop null", True),
    ],
)
def test_what_changes_state(line: str, changes: bool) -> None:
    assert changes_state(*parse_line(line)) is changes


def test_usage_shows_choices_and_optional_parts() -> None:
    driver, run = find_command("driver"), find_command("run")
    assert driver is not None and run is not None
    assert usage(driver) == "driver check|start|stop|restart|reset NAME"
    assert usage(run) == "run MODEL [PROMPT...] [options]"


@given(st.text(max_size=60))
def test_any_line_parses_or_is_explained(line: str) -> None:
    with contextlib.suppress(UsageError, HelpRequested):
        parse_line(line)
