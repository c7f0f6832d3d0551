"""The line editor of the shell: completion of commands, options, paths and names; history in the home folder."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from prompt_toolkit import PromptSession
from prompt_toolkit.auto_suggest import AutoSuggestFromHistory
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.history import FileHistory

from llmos.syscalls.errors import LlmosError
from llmos.syscalls.types import Kind as ObjectKind

from .cli import Cli
from .command import COMMON, Argument, Command, Kind
from .table import COMMANDS, find_command

FRESH_S = 2.0
"""How long names asked of the kernel are used again."""

_OBJECTS = {
    Kind.MODEL: (ObjectKind.MODEL,),
    Kind.DEVICE: (ObjectKind.DEVICE,),
    Kind.DRIVER: (ObjectKind.DRIVER,),
    Kind.TASK: (ObjectKind.TASK,),
    Kind.ID: (ObjectKind.TASK,),
    Kind.OBJECT: (ObjectKind.MODEL, ObjectKind.DEVICE, ObjectKind.DRIVER, ObjectKind.TASK),
}
_PATHS = frozenset({Kind.PATH, Kind.MODEL_PATH})
_HOST = frozenset({Kind.FILE, Kind.SOURCE})


class ShellCompleter(Completer):
    """Completes by the command table; names and paths come from the kernel."""

    def __init__(self, cli: Cli) -> None:
        self._cli = cli
        self._known: dict[str, tuple[float, list[str]]] = {}

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        before = document.text_before_cursor
        try:
            words = shlex.split(before)
        except ValueError:
            return
        word = "" if before[-1:].isspace() or not words else words.pop()
        found = [candidate for candidate in self._candidates(words, word) if candidate.startswith(word)]
        for candidate in found:
            done = len(found) == 1 and not candidate.endswith("/")
            yield Completion(candidate + " " * done, start_position=-len(word), display=candidate)

    def _candidates(self, words: list[str], word: str) -> Iterator[str]:
        if not words:
            yield from (command.name for command in COMMANDS)
            return
        command = find_command(words[0])
        if command is None:
            return
        if word.startswith("-"):
            yield from (flag for option in (*command.options, *COMMON) for flag in option.flags if len(flag) > 2)
            return
        kind, choices = _expected(command, words[1:])
        yield from choices
        if kind in _OBJECTS:
            for of in _OBJECTS[kind]:
                yield from self._names(of)
        if kind is Kind.COMMAND:
            yield from (c.name for c in COMMANDS)
        if kind in _HOST or (kind in _PATHS and word.startswith((".", "~"))):
            yield from _host_paths(word)
        elif kind is Kind.MODEL_PATH and not word.startswith("/"):
            yield from dict.fromkeys([*self._names(ObjectKind.MODEL), *self._stored()])
        elif kind in _PATHS or kind is Kind.OBJECT:
            yield from self._paths(word)

    def _names(self, kind: ObjectKind) -> list[str]:
        return self._asked(kind.value, lambda: [i.name or i.id for i in self._cli.system.objects(kind)])

    def _stored(self) -> list[str]:
        """Models as their bare names; those of an organisation need their path."""
        return [path.removeprefix("/models/") for path in self._paths("/models/") if not path.endswith("/")]

    def _paths(self, word: str) -> list[str]:
        folder = word.rpartition("/")[0] or "/"

        def ask() -> list[str]:
            entries = self._cli.system.list(folder)
            return [entry.path + ("/" if entry.kind == "folder" else "") for entry in entries]

        return self._asked(folder, ask)

    def _asked(self, key: str, ask: Callable[[], list[str]]) -> list[str]:
        at, names = self._known.get(key, (0.0, []))
        if time.monotonic() - at > FRESH_S:
            try:
                names = ask()
            except LlmosError:
                names = []
            self._known[key] = (time.monotonic(), names)
        return names


def _expected(command: Command, words: list[str]) -> tuple[Kind | None, tuple[str, ...]]:
    """What the next word of a command is: its kind, and the choices if they are few."""
    options = {flag: option for option in (*command.options, *COMMON) for flag in option.flags}
    if words and words[-1] in options and options[words[-1]].kind is not None:
        option = options[words[-1]]
        return option.kind, option.choices
    position = 0
    skip = False
    for word in words:
        if skip:
            skip = False
        elif word in options:
            skip = options[word].kind is not None
        else:
            position += 1
    argument = _argument(command, position)
    return (None, ()) if argument is None else (argument.kind, argument.choices)


def _argument(command: Command, position: int) -> Argument | None:
    if position < len(command.arguments):
        return command.arguments[position]
    last = command.arguments[-1] if command.arguments else None
    return last if last is not None and last.many else None


def history_file() -> Path:
    """Where lines are remembered."""
    home = Path(os.environ.get("LLMOS_HOME") or "~/.llmos").expanduser()
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    return home / "history"


def _host_paths(word: str) -> Iterator[str]:
    head, _, _ = word.rpartition("/")
    folder = Path(head or ("/" if word.startswith("/") else ".")).expanduser()
    if folder.is_dir():
        for entry in sorted(folder.iterdir()):
            yield (f"{head}/" if head or word.startswith("/") else "") + entry.name + ("/" if entry.is_dir() else "")


def question_session() -> PromptSession[str]:
    """The editor of answers and chats: they are no commands, so nothing is completed or kept in the history file."""
    return PromptSession()


def prompt_session(cli: Cli) -> PromptSession[str]:
    """The editor of one shell."""
    return PromptSession(
        history=FileHistory(str(history_file())),
        auto_suggest=AutoSuggestFromHistory(),
        completer=ShellCompleter(cli),
        complete_while_typing=False,
    )
