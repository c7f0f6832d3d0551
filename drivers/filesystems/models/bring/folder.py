"""Models from files of this machine: a Hugging Face folder, another model of the namespace, a folder of data."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from llmos.drivers.contract import ModelSource, SourceFile

from ...copying import copy
from ..derive import WEIGHTS, is_part
from ..manifest import read_object
from ..scan import MANIFEST, REFS, VERSIONS, bad
from .job import OWN, Filled, Meter, Wanted


def fill(wanted: Wanted, folder: Path) -> Filled:
    """Copy the located files of a model, hashing them on the way.

    Raises:
        BadModel: a name leads out of the folder, or the only weights are pickles.
        OSError: a file cannot be read or written.
    """
    source = wanted.source
    assert isinstance(source, ModelSource)
    files = chosen(source.files)
    meter = Meter(wanted.progress, sum(file.bytes for file in files), "copy")
    known = {file.name: copy_file(file, folder, meter) for file in files}
    name = PurePosixPath(source.path).name or str(source.manifest.get("name", ""))
    manifest = {"origin": f"folder {name}", **_stored(source), **source.manifest}
    return Filled({name: value for name, value in manifest.items() if name not in OWN}, known)


def _stored(source: ModelSource) -> Mapping[str, Any]:
    """The manifest among the files of a plain folder, for a file system that does not read it itself."""
    found = next((file for file in source.files if file.name == MANIFEST), None)
    return {} if found is None else read_object(found.path, MANIFEST)


def chosen(files: Sequence[SourceFile]) -> list[SourceFile]:
    """The files of a folder that belong to a model: none that is hidden, a pickle, or of another place's book-keeping.

    Raises:
        BadModel: a name leads out of the folder, or the only weights are pickles.
    """
    for file in files:
        check_name(file.name)
    visible = [file for file in files if not _aside(file.name)]
    parts = [file for file in visible if is_part(file.name)]
    if len(parts) < len(visible) and not any(file.name.endswith(WEIGHTS) for file in parts):
        pickle = next(file for file in visible if not is_part(file.name))
        raise bad(pickle.name, "the only weights are a pickle, which could run any code; convert it to safetensors")
    return parts


def check_name(name: str) -> str:
    """A name that stays inside of a folder, else BadModel."""
    path = PurePosixPath(name)
    if not name or path.is_absolute() or ".." in path.parts or "\0" in name or "\\" in name or str(path) != name:
        raise bad(name, "is not a name inside of the model's folder")
    return name


def _aside(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return name == MANIFEST or parts[0] in (VERSIONS, REFS) or any(part.startswith(".") for part in parts)


def copy_file(file: SourceFile, folder: Path, meter: Meter) -> str:
    """Copy a file into a folder; its SHA-256. Raises BadModel: it changes meanwhile."""
    descriptor = os.open(file.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        size = os.fstat(descriptor).st_size
        if size != file.bytes:
            raise bad(file.name, f"has {size} bytes now and had {file.bytes} a moment ago; try again when it is whole")
        return copy(descriptor, folder / file.name, meter.add)
    finally:
        os.close(descriptor)
