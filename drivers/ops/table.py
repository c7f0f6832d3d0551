"""The op table: for each op the implementations there are, and which one serves a case.

An op is a named function with fixed arguments; `reference.py` holds one correct implementation of each, in plain torch.
A package may add others through the hook `register_ops`: the one registered last is asked first, the reference last.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from llmos.syscalls.errors import Exists, NotFound, NotSupported

Spec = Mapping[str, Any]
"""The case to serve: `device` and `dtype` as text, and what the op's description names beside them."""

Supports = Callable[[Spec], tuple[bool, str]]
"""Says whether an implementation serves a case, and why not."""


@dataclass(frozen=True)
class Implementation:
    """One way to compute an op."""

    op: str
    name: str
    call: Callable[..., Any]
    supports: Supports


@dataclass(frozen=True)
class Chosen:
    """The implementation that serves a case; `refused` holds (name, reason) of those that were asked before it."""

    implementation: Implementation
    refused: tuple[tuple[str, str], ...]


class OpTable:
    """The implementations that one device knows."""

    def __init__(self) -> None:
        self._implementations: dict[str, dict[str, Implementation]] = {}

    def register(self, op: str, name: str, implementation: Callable[..., Any], supports: Supports) -> None:
        """Add an implementation. Raises Exists when the op already has one of that name."""
        named = self._implementations.setdefault(op, {})
        if name in named:
            raise Exists(f"the op {op} already has an implementation called {name}; choose another name")
        named[name] = Implementation(op, name, implementation, supports)

    def choose(self, op: str, spec: Spec) -> Chosen:
        """The newest implementation that serves `spec`. Raises NotSupported with every reason when none does."""
        refused: list[tuple[str, str]] = []
        for candidate in reversed(self._implementations.get(op, {}).values()):
            fits, reason = candidate.supports(spec)
            if fits:
                return Chosen(candidate, tuple(refused))
            refused.append((candidate.name, reason))
        why = "; ".join(f"{name}: {reason}" for name, reason in refused) or "no implementation is registered"
        raise NotSupported(f"no implementation of the op {op} serves {dict(spec)}", why=why)

    def ops(self) -> tuple[str, ...]:
        """All ops that have an implementation, in the order in which the first of each came."""
        return tuple(self._implementations)

    def named(self, op: str, name: str) -> Implementation:
        """One implementation of an op. Raises KeyError."""
        return self._implementations[op][name]

    def implementation(self, op: str, name: str) -> Implementation:
        """One by its name, whatever it serves. Raises NotFound."""
        found = self._implementations.get(op, {}).get(name)
        if found is None:
            raise NotFound(f"the op {op} has no implementation called {name}; it has {', '.join(self.names(op))}")
        return found

    def names(self, op: str) -> tuple[str, ...]:
        """The implementations of an op, in the order they are asked."""
        return tuple(reversed(self._implementations.get(op, {})))
