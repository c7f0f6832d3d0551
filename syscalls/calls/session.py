"""Who speaks, and the handles it holds."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from ..errors import (
    Conflict, Denied, Exists, NoResources, NoSpace, NotDirectory, NotFound, NotSupported, PeerGone, ReadOnly,
)  # fmt: skip
from ..spec import Call
from ..types import Done, Handle, NewHandle, Revoked, Right, Rights, Welcome


class Hello(Call[Welcome], name="hello", errors=(NotSupported, NoResources)):
    """Open a session: always the first call. The kernel takes the caller's identity from the operating system."""

    protocol: Annotated[int, "the newest protocol number the caller speaks"]
    program: Annotated[str, Meta(max_length=200), "what the program calls itself, for people to read"]
    tenant: Annotated[str, Meta(max_length=200), "a part of the caller's own share: fairness, cache privacy"] = ""
    resume: Annotated[str | None, "token of an earlier session of the same process, to take it up again"] = None


class CloseHandle(
    Call[Done],
    name="close_handle",
    errors=(NoSpace, Conflict, Exists, ReadOnly, NotFound, NotDirectory, PeerGone),
):
    """Give a handle up. Closing the last handle of an object ends the object, unless others derived from it remain.

    The errors are those of a file that was written: it is published now.
    """

    handle: Annotated[Handle, "any handle of this session"]


class DupHandle(Call[NewHandle], name="dup_handle"):
    """Make a second handle to the same object with equal or fewer rights."""

    handle: Annotated[Handle, Right.DUP, "the handle to copy"]
    rights: Annotated[Rights, "the rights of the copy; asking for one that is not held is an error"]


class GrantHandle(Call[NewHandle], name="grant_handle", errors=(NotFound, Denied)):
    """Give another session a handle to the same object, with equal or fewer rights."""

    handle: Annotated[Handle, Right.GRANT, "the handle to give"]
    session: Annotated[str, "stable id of the session that receives it"]
    rights: Annotated[Rights, "the rights to give"]


class RevokeHandle(Call[Revoked], name="revoke_handle"):
    """Close every handle derived from this one, in any session; the handle itself stays open."""

    handle: Annotated[Handle, Right.GRANT, "the handle whose descendants are to end"]
