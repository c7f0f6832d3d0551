"""What a command of the `llmos` program is: its arguments and options, and what kind of value each takes."""

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What a value means: decides how it is checked, completed and described."""

    MODEL_PATH = "model path"  # a model of the registry or a folder of the host: /models/tiny, ./my-model
    MODEL = "model"  # a loaded model, by name, id or path
    PATH = "path"  # a path of the namespace
    SOURCE = "source"  # where a mount takes its content from, usually a folder of the host
    DEVICE = "device"
    DRIVER = "driver"
    FILESYSTEM = "filesystem"
    TASK = "task"  # the id of a task
    ID = "id"  # the id of a task or a request
    OBJECT = "object"  # anything with an id, a name or a path
    VERSION = "version"
    NAME = "name"
    TEXT = "text"
    COMMAND = "command"
    ADDRESS = "address"  # HOST:PORT
    INTEGER = "integer"
    COUNT = "count"  # an integer of 1 or more
    DECIMAL = "decimal"
    SECONDS = "seconds"
    DURATION = "duration"  # 30s, 10m, 2h, 1d, forever: parsed to seconds
    CHOICE = "choice"
    FILE = "file"  # a file of the host


@dataclass(frozen=True, slots=True, kw_only=True)
class Argument:
    """A positional argument. With `many`, text arguments are joined by a space and the others become a list."""

    name: str
    kind: Kind
    help: str
    required: bool = True
    many: bool = False
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """A named option; without a kind it is a flag. An option that is not given has the value None (a flag: False)."""

    flags: tuple[str, ...]
    help: str
    kind: Kind | None = None
    many: bool = False
    choices: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The attribute the parsed value is found under: the first long flag with underscores."""
        long = next(flag for flag in self.flags if flag.startswith("--"))
        return long[2:].replace("-", "_")


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One command. `shell` is False for what makes sense only at the start of a process.

    `changes` says that the command alters the system, so a program that guessed it asks first; `harmless` lists
    (attribute, value) pairs that make a use of it read-only all the same. `taught` is False for what the bundled model
    has not learned to say.
    """

    name: str
    group: str
    help: str
    arguments: tuple[Argument, ...] = ()
    options: tuple[Option, ...] = ()
    changes: bool = False
    harmless: tuple[tuple[str, object], ...] = ()
    shell: bool = True
    taught: bool = True
    examples: tuple[str, ...] = ()


def flag(flags: str, help: str) -> Option:
    """An option without a value; `flags` are its spellings, with spaces between."""
    return Option(flags=tuple(flags.split()), help=help)


def option(flags: str, kind: Kind, help: str, *, many: bool = False, choices: tuple[str, ...] = ()) -> Option:
    """An option with a value of this kind."""
    return Option(flags=tuple(flags.split()), kind=kind, help=help, many=many, choices=choices)


def one(kind: Kind, help: str, *, name: str = "", required: bool = True) -> tuple[Argument, ...]:
    """The arguments of a command that takes one; it is called by the first word of its kind if not by a name."""
    return (Argument(name=name or str(kind).split()[0], kind=kind, help=help, required=required),)


JSON = flag("--json", "print exactly the call's result as JSON, one object per line for streams")
HELP_FLAGS = ("-h", "--help")
COMMON: tuple[Option, ...] = (JSON,)
