"""Help pages, made from the command table and the call table."""

from __future__ import annotations

import difflib

from llmos.syscalls.errors import NotFound

from .parser import usage
from .command import COMMON, Argument, Command, Option
from .table import COMMANDS, find_command, groups


def overview() -> str:
    """All commands by group."""
    lines = ["llmos: an operating system for AI models", "llmos COMMAND runs one, llmos alone opens the shell", ""]
    for group, commands in groups().items():
        lines.append(f"{group}:")
        lines += [f"  {usage(command):42} {command.help}" for command in commands]
        lines.append("")
    lines += ["help COMMAND explains one, help CALL a system call such as infer; --json prints results for programs."]
    return "\n".join(lines)


def page(name: str) -> str:
    """The page of a command, of a system call, or of both where they have one name. Raises NotFound."""
    import llmos.syscalls.calls  # noqa: F401  fills the table
    from llmos.syscalls import manual
    from llmos.syscalls.spec import SYSCALLS

    command = find_command(name)
    pages = [_command_page(command)] if command is not None else []
    if name in SYSCALLS:
        pages.append(manual.text(SYSCALLS[name]))
    if pages:
        return "\n\n".join(pages)
    near = difflib.get_close_matches(name, [*(c.name for c in COMMANDS), *SYSCALLS], 1)
    hint = f"; did you mean {near[0]}?" if near else "; help lists them"
    raise NotFound(f"there is no command and no call {name!r}{hint}")


def _command_page(command: Command) -> str:
    entries = [(argument.name.upper(), _with_choices(argument)) for argument in command.arguments]
    for option in (*command.options, *COMMON):
        value = f" {str(option.kind).upper()}" if option.kind else ""
        entries.append((", ".join(option.flags) + value, _with_choices(option)))
    width = max(len(name) for name, _ in entries)
    lines = [f"usage: llmos {usage(command)}", "", f"{command.help[0].upper()}{command.help[1:]}.", ""]
    lines += [f"  {name:{width}}  {text}" for name, text in entries]
    return "\n".join([*lines, "", "examples:", *(f"  llmos {example}" for example in command.examples)])


def _with_choices(item: Argument | Option) -> str:
    return f"{item.help}: {', '.join(item.choices)}" if item.choices else item.help
