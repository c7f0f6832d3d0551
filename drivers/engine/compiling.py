"""Requests that wait for their grammar, which is compiled on a thread of its own while others go on."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait

from llmos.syscalls.errors import LlmosError

from ..contract import Request
from .answers import end_tokens
from .loader import Bundle
from .sampling.grammar import Grammar, GrammarCompiler

COMPILING_S = 0.005
"""How long a step in which nobody else can go on waits for a grammar."""


class Compiling:
    """The requests of one model that wait, by their ids."""

    def __init__(self, grammars: GrammarCompiler) -> None:
        self._grammars = grammars
        self._made: dict[str, Future[Grammar]] = {}

    def __contains__(self, request: str) -> bool:
        return request in self._made

    def start(self, request: Request, bundle: Bundle) -> Future[Grammar] | None:
        """Begin to compile what a request asks for, if anything. Raises BadArgument for what is no grammar at all."""
        grammar = request.sampling.grammar
        return None if grammar is None else self._grammars.start(grammar, end_tokens(request, bundle))

    def hold(self, request: str, made: Future[Grammar]) -> None:
        """A request waits from now on."""
        self._made[request] = made

    def forget(self, request: str) -> None:
        """Nobody waits for it any more, if anybody did."""
        self._made.pop(request, None)

    def clear(self) -> None:
        """Nobody waits any more."""
        self._made.clear()

    def ended(self) -> Iterator[tuple[str, Grammar | LlmosError]]:
        """The requests that waited until now, each with its grammar, or why it is none."""
        for request in [request for request, made in self._made.items() if made.done()]:
            made = self._made.pop(request)
            try:
                yield request, made.result()
            except LlmosError as error:
                yield request, error

    def wait(self) -> None:
        """Pause until a grammar is compiled, no longer than `COMPILING_S`; at once when nobody waits."""
        wait(self._made.values(), COMPILING_S, FIRST_COMPLETED)
