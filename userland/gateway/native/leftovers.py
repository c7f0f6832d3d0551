"""Uploads of models that nobody went on with: removed after a time, with all that has arrived of them."""

from __future__ import annotations

from llmos.syscalls.errors import Busy, NotDirectory, NotFound
from llmos.syscalls.types import Entry
from llmos.userland.async_objects import AsyncSystem

from . import confine

INCOMING = "incoming"
_NOTHING = (NotFound, NotDirectory)


async def remove_leftovers(system: AsyncSystem, before: float) -> list[str]:
    """Remove the uploads of all keys to which nothing was added since a time, seconds since the epoch.

    Returns:
        The folders that were removed.
    """
    removed = []
    for key in await _listed(system, confine.HOMES):
        for upload in await _listed(system, f"{key.path}/{INCOMING}"):
            found = await _below(system, upload)
            if max(entry.mtime for entry in found) < before:
                for entry in reversed(found):
                    await _remove(system, entry.path)
                removed.append(upload.path)
    return removed


async def _below(system: AsyncSystem, entry: Entry) -> list[Entry]:
    """An entry and all that lies in it, folders before what they hold."""
    found = [entry]
    for inner in await _listed(system, entry.path) if entry.kind == "folder" else ():
        found += await _below(system, inner)
    return found


async def _listed(system: AsyncSystem, path: str) -> list[Entry]:
    try:
        return list(await system.list(path))
    except _NOTHING:
        return []


async def _remove(system: AsyncSystem, path: str) -> None:
    try:
        await system.remove(path)
    except (NotFound, Busy):
        return  # somebody else removed it, or goes on with the upload after all
