"""Which files of the data are for what: those that a recipe names, and all others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from llmos.syscalls.errors import BadArgument

from ...contract import SourceFile

MAIN = ""
"""What a file is for that nothing names."""


def parted(
    path: str, files: Sequence[SourceFile], named: Mapping[str, Sequence[str]]
) -> dict[str, tuple[SourceFile, ...]]:
    """Files by what they are for: each name of `named`, and `MAIN`, which may be empty.

    Args:
        path: of the data, for errors.
        files: all there are.
        named: for each use the names of its files inside the folder, with `*`, `?` and `[...]`.

    Raises:
        BadArgument: a name fits no file, or a file is for two uses.
    """
    uses: dict[str, str] = {}
    for use, patterns in named.items():
        for pattern in patterns:
            fitting = [file.name for file in files if fnmatchcase(file.name, pattern)]
            if not fitting:
                there = ", ".join(file.name for file in files[:8]) or "nothing"
                said = f"{use}: no file of {path} is named {pattern!r}; there is {there}"
                raise BadArgument(said, name="files", got=pattern, want=there)
            for name in fitting:
                if uses.setdefault(name, use) != use:
                    want = "a file in one of them"
                    said = f"{name} is one of the files of {uses[name]} and of {use}: it takes {want}"
                    raise BadArgument(said, name="files", got=name, want=want)
    return {use: tuple(file for file in files if uses.get(file.name, MAIN) == use) for use in (MAIN, *named)}
