"""What a command works with: the system (joined or booted when it is first needed), its output, its input."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import TracebackType

from llmos.syscalls.types import ObjectInfo
from llmos.userland.embedding import boot, connect
from llmos.userland.link import NoKernel
from llmos.userland.objects import System

from .out import Out

DEFAULT_MODEL = "/models/tiny"


class Cli:
    """The surroundings of one command, or of all commands of a shell.

    Args:
        out: where to print.
        system: a system to use; by default the running kernel is joined, or a private one started.
        ask: asks the person a question that is answered with a line; None where nobody can answer.
    """

    def __init__(self, out: Out, system: System | None = None, ask: Callable[[str], str] | None = None) -> None:
        self.out = out
        self.ask = ask
        self._system = system
        self._owned = system is None
        self.private = False

    @property
    def system(self) -> System:
        if self._system is None:
            try:
                self._system = connect(program="llmos")
            except NoKernel:
                self._system, self.private = boot(), True
                if not self.out.as_json:
                    note = "no kernel is running, so this command uses one of its own; `llmos serve` keeps one running"
                    sys.stderr.write(f"llmos: {note}\n")
        return self._system

    def joined(self) -> System:
        """The running kernel, never a private one. Raises NoKernel."""
        if self._system is None:
            self._system = connect(program="llmos")
        return self._system

    def with_out(self, out: Out) -> Cli:
        """The same surroundings with another output, for one command of a shell."""
        other = Cli(out, self.system, self.ask)
        other.private, other._owned = self.private, False
        return other

    def confirm(self, question: str) -> bool:
        """Ask for a yes; without anybody to ask it is a no."""
        if self.ask is None:
            return False
        return self.ask(f"{question} [y/N] ").strip().lower() in ("y", "yes")

    def handle_of(self, info: ObjectInfo) -> int:
        assert info.handle is not None
        return info.handle

    def close(self) -> None:
        if self._owned and self._system is not None:
            self._system.close()
            self._system = None

    def __enter__(self) -> Cli:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
