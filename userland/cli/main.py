"""The `llmos` program: one command, or the shell. Exit status 0 done, 1 failed, 2 not understood, 130 interrupted."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from collections.abc import Sequence

from llmos.syscalls.errors import LlmosError

from .parser import HelpRequested, UsageError, parse_words
from .command import HELP_FLAGS, Command

FAILED, USAGE, INTERRUPTED = 1, 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program with these words (those of the command line by default)."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        return run(words)
    except KeyboardInterrupt:
        sys.stderr.write("\n")
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read us has enough: no error, and no second one when Python flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def run(words: list[str]) -> int:
    """One command, help, the version, or the shell."""
    if words in (["--version"], ["-V"]):
        from importlib.metadata import version

        print(f"llmos {version('llmos')}")
        return 0
    if words and words[0] in HELP_FLAGS:
        words = ["help", *words[1:]]
    if not words:
        from .shell import shell

        return shell()
    try:
        command, values = parse_words(words)
    except UsageError as error:
        from .out import show_error

        show_error(error, "--json" in words)
        return USAGE
    except HelpRequested as requested:
        from .help import page
        from .out import Out

        Out().page(page(requested.command.name))
        return 0
    return execute(command, values)


def execute(command: Command, values: Namespace) -> int:
    """Run one parsed command with surroundings of its own; its exit status."""
    from llmos.userland.private import BootFailed

    from .cli import ALONE, Cli
    from .commands import run_command
    from .out import Out, show_error

    ask = input if sys.stdin.isatty() else None
    cli = Cli(Out(values.json), ask=ask, may_boot=command.name in ALONE)
    try:
        with cli:
            return run_command(cli, command, values)
    except BrokenPipeError:
        raise
    except (LlmosError, BootFailed, OSError) as error:
        show_error(error, values.json)
        return FAILED


if __name__ == "__main__":
    raise SystemExit(main())
