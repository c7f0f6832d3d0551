"""A result that is stored already: its kernel, or the driver that stores models, had ended before that was recorded."""

from __future__ import annotations

from llmos.syscalls.driver import HostStat
from llmos.syscalls.errors import BadModel, NotFound
from llmos.syscalls.types import Entry

from ..link import Link
from .runs import Place

RUN = "run"
"""The field of a manifest that names the run whose result it is."""


async def stored(link: Link, out: Place, run: str) -> str:
    """The version at a place that a run has stored, the newest first; an empty text when there is none."""
    name = out.inner.partition("@")[0]
    current = await _entry(link, out.source, name)
    versions = current.fields.get("versions", []) if current is not None else []
    for version in reversed(versions):
        entry = await _entry(link, out.source, f"{name}@{version}")
        if entry is not None and entry.fields.get(RUN) == run:
            return str(version)
    return ""


async def _entry(link: Link, source: str, path: str) -> Entry | None:
    """None of what is not there, or damaged: none of that can be the result that was just checked and stored."""
    try:
        return await link.call(HostStat(source=source, path=path))
    except (NotFound, BadModel):
        return None
