"""Bodies with files (RFC 7578, multipart/form-data), with the limit of uploads instead of that of bodies."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException
from starlette.requests import Request

from llmos.syscalls.errors import BadArgument

from ..core.body import inbox_of
from ..core.caller import gateway_of
from ..core.errors import HttpError

_FIELDS = 64


@asynccontextmanager
async def form_of(request: Request) -> AsyncIterator[FormData]:
    """The fields and the one file of a form; the file is gone at the end of the block.

    Raises:
        BadArgument: no well-formed form.
        HttpError: 413, 415.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "multipart/form-data":
        text = f"the body is {kind or 'of no type'}; send multipart/form-data"
        raise HttpError(415, "invalid_request_error", "unsupported_media_type", text)
    inbox_of(request).allow(gateway_of(request).settings.upload_bytes)
    try:
        form = await request.form(max_files=1, max_fields=_FIELDS)
    except MultiPartException as error:
        raise BadArgument(f"the form is not well made: {error.message}", name="body") from None
    try:
        yield form
    finally:
        await form.close()


def file_of(form: FormData, name: str = "file") -> UploadFile:
    """The file of a form. Raises BadArgument: there is none."""
    found = form.get(name)
    if not isinstance(found, UploadFile):
        raise BadArgument(f"the form has no file {name!r}", name=name, want="a file")
    return found


def text_of(form: FormData, name: str, default: str = "") -> str:
    """A field of a form."""
    found = form.get(name, default)
    return found if isinstance(found, str) else default
