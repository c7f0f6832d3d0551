"""The shell: commands of the table one after the other on one session, with completion, history and pipes.

A line may end in `| PROGRAM` or `> FILE` or `>> FILE`; Ctrl-C ends the command, not the shell; Ctrl-D leaves. Without a
terminal the lines of standard input are run as a script, and the first one that fails ends it.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from llmos.syscalls.errors import LlmosError
from llmos.userland.private import BootFailed

from .cli import DEFAULT_MODEL, Cli
from .commands import run_command
from .help import page
from .out import Out, show_error
from .parser import HelpRequested, UsageError, parse_words

FAILED, USAGE, INTERRUPTED = 1, 2, 130
_UP_TO_OPERATOR = re.compile(r"""(?:\\.|'[^']*'|"(?:\\.|[^"\\])*"|[^\\'"|>])*""", re.DOTALL)
"""What stands before the first `|` or `>` that is not quoted."""


@dataclass(frozen=True)
class Line:
    """A typed line: the words of the command, and where its output goes."""

    words: list[str]
    pipe: str = ""
    file: str = ""
    append: bool = False


def split(text: str) -> Line:
    """Take a line apart. Raises UsageError for open quotes or a redirection without a target."""
    found = _UP_TO_OPERATOR.match(text)
    assert found is not None
    rest = text[found.end() :]
    if rest.startswith("|"):
        program = rest[1:].strip()
        if not program:
            raise UsageError("there is no program after |. Try: ps | less")
        return Line(_words(found[0]), pipe=program)
    if rest.startswith(">"):
        sign = ">>" if rest.startswith(">>") else ">"
        after = rest.removeprefix(sign)
        target = _words(after)
        if len(target) != 1 or not _UP_TO_OPERATOR.fullmatch(after):
            raise UsageError(f"{sign} needs one file name at the end of the line. Try: ps {sign} models.txt")
        return Line(_words(found[0]), file=target[0], append=sign == ">>")
    return Line(_words(text))


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise UsageError(f"{error}: {text!r}. Close the quotation, or put a backslash before the quote.") from None


@contextmanager
def output_of(line: Line) -> Iterator[IO[str] | None]:
    """Where the command prints: a program's input, a file, or None for the terminal."""
    with ExitStack() as stack:
        if line.pipe:
            process = subprocess.Popen(line.pipe, shell=True, stdin=subprocess.PIPE, text=True)
            stack.callback(process.wait)
            assert process.stdin is not None
            yield stack.enter_context(process.stdin)
        elif line.file:
            path = Path(line.file).expanduser()
            yield stack.enter_context(path.open("a" if line.append else "w"))
        else:
            yield None


class Shell:
    """Runs lines. `ask` reads a line from the person."""

    def __init__(self, cli: Cli) -> None:
        self.cli = cli
        self.left = False

    def run(self, text: str) -> int:
        """Run one line; its exit status."""
        try:
            line = split(text)
            if not line.words:
                return 0
            if line.words[0] in ("exit", "quit"):
                self.left = True
                return 0
            return self._command(line)
        except UsageError as error:
            # A line with options, quotes or a pipe was meant as a command.
            prose = not re.search(r"[\"'|>]| -", text)
            plain_english = prose and (error.command is None or len(text.split()) > 2)
            hint = f"\nIn plain English: ask {text.strip()}" if plain_english else ""
            sys.stderr.write(f"llmos: {error.text}{hint}\n")
            return USAGE
        except HelpRequested as requested:
            self.cli.out.page(page(requested.command.name))
            return 0
        except KeyboardInterrupt:
            sys.stderr.write("\n(interrupted)\n")
            return INTERRUPTED
        except BrokenPipeError:
            return 0
        except (LlmosError, BootFailed, OSError) as error:
            show_error(error, as_json="--json" in text.split())
            return FAILED

    def _command(self, line: Line) -> int:
        command, values = parse_words(line.words)
        if not command.shell:
            raise UsageError(f"{command.name} starts a process of its own: llmos {command.name}", command)
        with output_of(line) as target:
            return run_command(self.cli.with_out(Out(values.json, target)), command, values)


def shell() -> int:
    """The interactive shell, or a script from standard input; the exit status of the last line."""
    if not sys.stdin.isatty():
        with Cli(Out(), may_boot=True) as cli:
            return script(Shell(cli), iter(sys.stdin))
    from .prompt import prompt_session, question_session

    with Cli(Out(), may_boot=True) as cli:
        greet(cli)
        session = prompt_session(cli)
        cli.ask = question_session().prompt
        return converse(Shell(cli), lambda: session.prompt("llmos> "))


def script(shell: Shell, lines: Iterator[str]) -> int:
    """Run lines until one fails."""
    for text in lines:
        if text.lstrip().startswith("#"):
            continue
        status = shell.run(text)
        if status or shell.left:
            return status
    return 0


def converse(shell: Shell, read: Callable[[], str]) -> int:
    """Read and run lines until the person leaves."""
    status = 0
    while not shell.left:
        try:
            status = shell.run(read())
        except KeyboardInterrupt:
            continue
        except EOFError:
            break
    return status


def greet(cli: Cli) -> None:
    """Say where one is, and load the bundled model into a kernel that has none."""
    system = cli.system
    facts = system.stat().fields
    if not system.models():
        from .commands.models import progress_bar

        try:
            with progress_bar(cli, f"loading {DEFAULT_MODEL}") as show:
                system.load_model(DEFAULT_MODEL, on_progress=show)
        except LlmosError as error:
            cli.out.line(f"{DEFAULT_MODEL} could not be loaded: {error}")
    loaded = ", ".join(f"{info.name} on {info.fields.get('device')}" for info in system.models()) or "none"
    whose = "a kernel of this shell's own" if cli.private else f"the kernel of process {facts['pid']}"
    cli.out.line(f"LLM OS {facts['version']}, {whose}. Models: {loaded}.")
    cli.out.line('Type help for the commands, or say what you want: ask "which models are loaded". Ctrl-D leaves.')
