"""Entry point of the `models` file system.

A source is one folder of the host or several joined as in PATH: the first one is written to, the others are laid below
it and stay as they are. The word `bundled` stands for the models that come with this package.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from llmos.drivers.contract import FileSystem, FileSystemFactory
from llmos.drivers.hookspecs import hookimpl
from llmos.syscalls.describe import suggest
from llmos.syscalls.errors import BadArgument, NotFound

from .filesystem import ModelsFileSystem
from .store import Layer

BUNDLED = "bundled"
BUNDLED_FOLDER = Path(__file__).parent / "bundled"
CONFIG_KEYS: Mapping[str, str] = {"cache": "folder for remembered hashes; ~/.llmos/cache/models by default"}


def layers_of(source: str) -> list[Layer]:
    """The folders of a source, the writable one first.

    Raises:
        BadArgument: empty, or a folder that is not absolute.
        NotFound: a folder does not exist; only the first of several may be missing, and is made when it is written to.
    """
    whole = Path(source)
    names = [source] if whole.is_absolute() and whole.is_dir() else [n for n in source.split(os.pathsep) if n]
    if not names:
        raise BadArgument("the source of models is empty", name="source", got=source, want="a folder of this machine")
    return [_layer(name, first=place == 0, alone=len(names) == 1) for place, name in enumerate(names)]


def _layer(name: str, first: bool, alone: bool) -> Layer:
    if name == BUNDLED:
        return Layer(BUNDLED_FOLDER, writable=False)
    folder = Path(name)
    if not folder.is_absolute():
        want = f"an absolute path, or {BUNDLED}"
        raise BadArgument(f"the folder of models {name!r} is not absolute", name="source", got=name, want=want)
    if not folder.is_dir() and (alone or not first):
        raise NotFound(f"there is no folder {name} on this machine")
    return Layer(folder, writable=first)


def open_source(source: str, config: Mapping[str, Any]) -> FileSystem:
    """Build the file system of one source. Raises BadArgument, NotFound."""
    for key in config:
        if key not in CONFIG_KEYS:
            text = f"the models driver has no setting {key!r}; {suggest(key, CONFIG_KEYS)}"
            raise BadArgument(text, name=key, want=", ".join(CONFIG_KEYS))
    cache = config.get("cache") or Path(os.environ.get("LLMOS_HOME") or Path.home() / ".llmos") / "cache" / "models"
    return ModelsFileSystem(layers_of(source), Path(cache))


@hookimpl
def register_filesystems(register: Callable[[str, FileSystemFactory], None]) -> None:
    register("models", open_source)
