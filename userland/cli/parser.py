"""The parser of the command table: words or a typed line become a command and its checked values.

A mistake raises `UsageError` with a sentence for a person; nothing here prints or ends the process, so the shell, the
command line and `llmos ask` share it.
"""

import argparse
import difflib
import math
import re
import shlex
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from llmos.userland.cli.command import COMMON, HELP_FLAGS, Argument, Command, Kind, Option
from llmos.userland.cli.table import COMMANDS, find_command

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")


class UsageError(Exception):
    """A command that cannot be understood. `text` says what and what to try; `command` is None for an unknown one."""

    def __init__(self, text: str, command: Command | None = None) -> None:
        super().__init__(text)
        self.text = text
        self.command = command


class HelpRequested(Exception):
    """The user asked for the help page of a command (`-h`, `--help`)."""

    def __init__(self, command: Command) -> None:
        super().__init__(f"help of {command.name}")
        self.command = command


def parse_line(text: str) -> tuple[Command, argparse.Namespace]:
    """Parse a line as typed in the shell (POSIX quoting). Raises UsageError or HelpRequested."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise UsageError(f"{error}: {text!r}. Close the quotation, or put a backslash before the quote.") from None
    if not words:
        raise UsageError("there is no command. Type help to see them all.")
    return parse_words(words)


def parse_words(words: Sequence[str]) -> tuple[Command, argparse.Namespace]:
    """Parse a command given as words, its name first. Raises UsageError or HelpRequested."""
    command = find_command(words[0])
    if command is None:
        raise UsageError(_unknown(words[0]))
    values = build_parser(command).parse_intermixed_args(list(words[1:]))
    for argument in command.arguments:
        if argument.kind is Kind.TEXT and argument.many:
            setattr(values, argument.name, " ".join(getattr(values, argument.name)) or None)
    if command.name == "mount" and (values.source is None) is not (values.path is None):
        raise UsageError("mount needs a source and a path, or neither. Try: mount ~/hub /models/hub", command)
    return command, values


def changes_state(command: Command, values: argparse.Namespace) -> bool:
    """Whether this use of the command alters the system."""
    return command.changes and not any(getattr(values, name) == value for name, value in command.harmless)


def build_parser(command: Command) -> argparse.ArgumentParser:
    """The argparse parser of one command; its errors are UsageError, its help is HelpRequested."""
    parser = _Parser(command)
    parser.add_argument(*HELP_FLAGS, action=_Help, nargs=0, dest="help", default=argparse.SUPPRESS)
    for argument in command.arguments:
        _add_argument(parser, argument)
    for option in (*command.options, *COMMON):
        _add_option(parser, option)
    return parser


def usage(command: Command) -> str:
    """The one-line form of a command, as in `load MODEL [options]`."""
    words = [command.name]
    for argument in command.arguments:
        word = "|".join(argument.choices) or argument.name.upper()
        word += "..." if argument.many else ""
        words.append(word if argument.required else f"[{word}]")
    if command.options:
        words.append("[options]")
    return " ".join(words)


class _Parser(argparse.ArgumentParser):
    def __init__(self, command: Command) -> None:
        super().__init__(prog=command.name, description=command.help, add_help=False, allow_abbrev=False)
        self.command = command

    def error(self, message: str) -> NoReturn:
        unknown = re.fullmatch(r"unrecognized arguments: (?:.* )?(--[^\s=]+).*", message, re.DOTALL)
        what = _no_option(self.command, unknown[1]) if unknown else f"{message}."
        raise UsageError(f"{self.command.name}: {what} Usage: {usage(self.command)}", self.command)


class _Help(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        assert isinstance(parser, _Parser)
        raise HelpRequested(parser.command)


def _add_argument(parser: argparse.ArgumentParser, argument: Argument) -> None:
    details: dict[str, Any] = {"type": _reader(argument.kind, argument.choices), "help": argument.help}
    if argument.many:
        # Without a default argparse takes "*" for required when it says what is missing.
        details |= {"nargs": "+"} if argument.required else {"nargs": "*", "default": []}
    elif not argument.required:
        details["nargs"] = "?"
    parser.add_argument(argument.name, metavar=argument.name.upper(), **details)


def _add_option(parser: argparse.ArgumentParser, option: Option) -> None:
    if option.kind is None:
        parser.add_argument(*option.flags, dest=option.name, action="store_true", help=option.help)
        return
    parser.add_argument(
        *option.flags, dest=option.name, type=_reader(option.kind, option.choices), help=option.help,
        metavar=str(option.kind).upper(), action="append" if option.many else "store",
    )


def _reader(kind: Kind, choices: tuple[str, ...]) -> Callable[[str], object]:
    if kind is Kind.CHOICE:
        return lambda text: _choice(text, choices)
    return _READERS.get(kind, str)


def _choice(text: str, choices: tuple[str, ...]) -> str:
    if text not in choices:
        raise argparse.ArgumentTypeError(f"{text!r} is not one of {', '.join(choices)}")
    return text


def _integer(text: str) -> int:
    if not re.fullmatch(r"[+-]?\d+", text, re.ASCII):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number")
    return int(text)


def _count(text: str) -> int:
    value = _integer(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is too small; it must be 1 or more")
    return value


def _decimal(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not a finite number")
    return value


def _seconds(text: str) -> float:
    value = _decimal(text.removesuffix("s"))
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is negative; a time in seconds is 0 or more")
    return value


def _duration(text: str) -> float:
    if text == "forever":
        return math.inf
    match = _DURATION.fullmatch(text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a duration; write 30s, 10m, 2h, 1d or forever")
    return float(match[1]) * _UNITS[match[2]]


def _address(text: str) -> str:
    host, colon, port = text.rpartition(":")
    if text.startswith("unix:") and len(text) > 5:
        return text
    if not (colon and host and port.isdecimal() and int(port) < 65536):
        want = "HOST:PORT, as in 127.0.0.1:7411 (ports end at 65535), or unix:PATH"
        raise argparse.ArgumentTypeError(f"{text!r} is not an address; write {want}")
    return text


_READERS: dict[Kind, Callable[[str], object]] = {
    Kind.INTEGER: _integer, Kind.COUNT: _count, Kind.DECIMAL: _decimal, Kind.SECONDS: _seconds,
    Kind.DURATION: _duration, Kind.ADDRESS: _address,
}


def _no_option(command: Command, flag: str) -> str:
    known = [name for option in (*command.options, *COMMON) for name in option.flags if name.startswith("--")]
    near = difflib.get_close_matches(flag, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(known)}."
    return f"there is no option {flag}; {hint}"


def _unknown(name: str) -> str:
    near = difflib.get_close_matches(name, [command.name for command in COMMANDS], n=3)
    hint = f"Did you mean {' or '.join(near)}?" if near else "Type help to see them all."
    return f"{name!r} is not a command. {hint}"
