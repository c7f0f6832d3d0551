"""What a command works with: the system (joined or booted when it is first needed), its output, its input."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from llmos.syscalls.errors import BadArgument
from llmos.userland.places import home_folder

from .out import Out

if TYPE_CHECKING:
    from llmos.userland.objects import System

DEFAULT_MODEL = "/models/tiny"
ALONE = frozenset({"run", "ask", "ls", "cat", "cp", "rm", "show", "search", "pull", "push", "keys"}) | {
    "alias", "tag", "rollback", "fsck", "gc", "quantize", "prune", "merge", "export", "tune", "runs", "back-translate"
}  # fmt: skip
"""Commands that make sense without a running kernel: they start a private one. All others speak of the running one."""


class Cli:
    """The surroundings of one command, or of all commands of a shell.

    Args:
        out: where to print.
        system: a system to use; by default the running kernel is joined.
        ask: asks the person a question that is answered with a line; None where nobody can answer.
        may_boot: start a private kernel when none is running.
    """

    def __init__(
        self,
        out: Out,
        system: System | None = None,
        ask: Callable[[str], str] | None = None,
        *,
        may_boot: bool = False,
    ) -> None:
        self.out = out
        self.ask = ask
        self.may_boot = may_boot
        self._system = system
        self._owned = system is None
        self.private = False
        self.in_shell = False
        """Commands follow each other on one session, so what they open lasts."""

    @property
    def system(self) -> System:
        """The running kernel; where the command may, else a private one.

        Raises:
            NoKernel: none is running.
        """
        if self._system is None:
            from llmos.userland.embedding import boot, connect
            from llmos.userland.link import NoKernel

            try:
                self._system = connect(program="llmos")
            except NoKernel:
                if not self.may_boot:
                    raise
                self._system, self.private = boot(), True
                self.out.note("llmos: no kernel is running, so this one is private; `llmos serve` keeps one running")
        return self._system

    def home(self) -> Path:
        """The home folder that LLMOS_HOME names, else that of the running kernel, else the default."""
        from llmos.userland.embedding import connect
        from llmos.userland.link import NoKernel

        if os.environ.get("LLMOS_HOME"):
            return home_folder()
        if self._system is None:
            try:
                self._system = connect(program="llmos")
            except NoKernel:
                return home_folder()
        return Path(self._system.stat().fields["home"])

    def stored(self, name: str) -> str:
        """The path of a stored model: a folder of this machine is mounted, and a bare name is of /models."""
        path: str = self.system.namespace_path(name)
        return path if path.startswith("/") else f"/models/{path}"

    def path(self, name: str) -> str:
        """The path of the namespace that was typed; a folder of this machine is mounted.

        Raises:
            BadArgument: it is neither.
            NotFound: there is no such folder.
        """
        path: str = self.system.namespace_path(name)
        if not path.startswith("/"):
            text = f"{name!r} is no path: write /{name} for the namespace (`ls /` lists it), ./{name} for this machine"
            raise BadArgument(text, name="path", got=name, want="a path that starts with / or ./")
        return path

    def with_out(self, out: Out) -> Cli:
        """The same surroundings with another output, for one command of a shell."""
        other = Cli(out, self.system, self.ask)
        other.in_shell = True
        other.private, other._owned = self.private, False
        return other

    def confirm(self, question: str) -> bool:
        """Ask for a yes; without anybody to ask it is a no."""
        if self.ask is None:
            return False
        return self.ask(f"{question} [y/N] ").strip().lower() in ("y", "yes")

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
