"""What each command of the table does."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Mapping
from importlib import import_module

from ..cli import Cli
from ..command import Command

Handler = Callable[[Cli, Namespace], int]

_MODULES: Mapping[str, tuple[str, ...]] = {
    "looking": (
        "ps", "drivers", "sessions", "tasks", "stat", "logs", "metrics", "events",
    ),
    "explaining": ("why", "alerts"),
    "devices": ("devices",),
    "watching": ("top",),
    "models": (
        "show", "load", "unload", "sleep", "wake", "pin", "unpin", "keep-alive", "swap", "alias", "rollback", "fsck",
        "gc",
    ),
    "registry": ("pull", "push", "tag"),
    "making": ("quantize", "prune", "merge", "export"),
    "tuning": ("tune", "runs"),
    "translating": ("back-translate",),
    "keys": ("keys",),
    "inference": ("run", "ask"),
    "files": ("ls", "cat", "cp", "rm", "mount", "umount", "search"),
    "tasks": ("wait", "pause", "resume", "priority", "cancel"),
    "system": ("serve", "stop", "driver", "doctor", "help"),
    "benching": ("bench",),
}  # fmt: skip
"""Which module has which command; a module is imported when one of its commands is used."""


def handler(name: str) -> Handler:
    """The function of a command.

    Raises:
        KeyError: nobody implements it (`exit` belongs to the shell).
    """
    module = next((module for module, names in _MODULES.items() if name in names), None)
    if module is None:
        raise KeyError(name)
    found: Handler = getattr(import_module(f"{__name__}.{module}"), name.replace("-", "_"))
    return found


def run_command(cli: Cli, command: Command, values: Namespace) -> int:
    """Run a parsed command; its exit status."""
    return handler(command.name)(cli, values)
