"""What exists, and what can be done with it."""

from __future__ import annotations

from typing import Annotated, Any

from ..errors import (
    BadModel, BadState, Busy, Conflict, DriverFailed, Exists, NoDeviceMemory, NoSpace, NotDirectory, NotFound,
    NotSupported, PeerGone, ReadOnly, Unavailable,
)  # fmt: skip
from ..spec import Call
from ..types import Handle, Kind, ObjectInfo, Right


class ListObjects(Call[list[ObjectInfo]], name="list_objects"):
    """List the objects of one kind that the caller may see, with their stable ids."""

    system: Annotated[Handle, Kind.SYSTEM, Right.LIST, "the system"]
    kind: Annotated[Kind, "session, device, driver, model, context, lease, buffer, file, mount or task"]
    prefix: Annotated[str, "only names and ids that start so"] = ""


class StatObject(Call[ObjectInfo], name="stat_object", errors=(NotFound,)):
    """Describe one object: state, health, bytes, and fields of its kind."""

    handle: Annotated[Handle, Right.READ, "any handle"]


class ControlObject(
    Call[ObjectInfo],
    name="control_object",
    errors=(
        BadState, NotSupported, NotFound, Busy, Unavailable, PeerGone, DriverFailed, NoDeviceMemory, BadModel,
        ReadOnly, NoSpace, NotDirectory, Exists, Conflict,
    ),
):  # fmt: skip
    """Act on one object; the actions of each kind stand in the manual page."""

    handle: Annotated[Handle, "an object; the action needs MANAGE (adapters and alias: WRITE)"]
    action: Annotated[str, "what to do, such as sleep, wake, pin, restart, pause, alias"]
    options: Annotated[dict[str, Any], "arguments of the action"] = {}
