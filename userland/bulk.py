"""Large bytes travel in shared buffers: moved there before a call, copied out after it.

Applied by both clients, so that a program passes and gets plain bytes of any size.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar, cast

import msgspec

from llmos.syscalls import calls
from llmos.syscalls.shm import Mapping as SharedMapping
from llmos.syscalls.spec import Call
from llmos.syscalls.types import (
    BufferRef, Data, Embeddings, Handle, Inference, Parts, TaskResultValue, Tensor, Tensors, TensorsOut,
)  # fmt: skip
from llmos.syscalls.wire import LIMITS

from .flow import Flow, OnProgress, ask
from .options import deadline_in

R = TypeVar("R")

_INFERENCES = (calls.Infer, calls.InferStream, calls.Embed)


def is_bulky(request: Call[Any]) -> bool:
    """Whether the request carries bytes that do not go into a message."""
    if isinstance(request, calls.WriteFile):
        return _large(request.data)
    if isinstance(request, _INFERENCES):
        given = request.input
        if isinstance(given, Parts):
            return any(_large(getattr(part, "data", None)) for part in given.parts)
        if isinstance(given, Tensors):
            return any(_large(tensor.data) for tensor in given.named.values())
    return False


def _large(data: object) -> bool:
    return isinstance(data, bytes) and len(data) > LIMITS.inline_bytes


def with_timeout(request: Call[R], timeout: float | None) -> Call[R]:
    """The request with a deadline `timeout` seconds from now."""
    return request if timeout is None else msgspec.structs.replace(request, deadline=deadline_in(timeout))


def send(request: Call[R], system: Handle, on_progress: OnProgress | None = None) -> Flow[R]:
    """Make the call with its large bytes in buffers, and free them afterwards."""
    moved, buffers = yield from move(request, system)
    try:
        return (yield from ask(moved, on_progress))
    finally:
        yield from free(buffers)


def move(request: Call[R], system: Handle) -> Flow[tuple[Call[R], list[Handle]]]:
    """The request with its large bytes in buffers, and the handles of these, to be freed after the answer."""
    buffers: list[Handle] = []
    try:
        moved = yield from _moved(request, system, buffers)
    except BaseException:
        yield from free(buffers)
        raise
    return moved, buffers


def free(buffers: list[Handle]) -> Flow[None]:
    """Close the handles of buffers."""
    for buffer in buffers:
        yield from ask(calls.CloseHandle(handle=buffer))


def _moved(request: Any, system: Handle, buffers: list[Handle]) -> Flow[Any]:
    if isinstance(request, calls.WriteFile):
        data = yield from _place(request.data, system, buffers)
        return msgspec.structs.replace(request, data=data)
    given = request.input
    if isinstance(given, Parts):
        parts: list[Any] = []
        for part in given.parts:
            if _large(getattr(part, "data", None)):
                data = yield from _place(cast("Any", part).data, system, buffers)
                parts.append(msgspec.structs.replace(part, data=data))
            else:
                parts.append(part)
        return msgspec.structs.replace(request, input=Parts(parts=parts))
    named: dict[str, Tensor] = {}
    for name, tensor in given.named.items():
        data = yield from _place(tensor.data, system, buffers)
        named[name] = msgspec.structs.replace(tensor, data=data)
    return msgspec.structs.replace(request, input=Tensors(named=named))


def _place(data: bytes | BufferRef, system: Handle, buffers: list[Handle]) -> Flow[bytes | BufferRef]:
    if not isinstance(data, bytes) or not _large(data):
        return data
    buffer = yield from ask(calls.AllocBuffer(system=system, bytes=len(data)))
    buffers.append(buffer.handle)
    with SharedMapping(buffer.path, writable=True) as mapping:
        mapping.view[: len(data)] = data
    return BufferRef(buffer=buffer.handle, offset=0, length=len(data))


# ---- results


def is_elsewhere(result: object) -> bool:
    """Whether a result has bytes in a buffer."""
    if isinstance(result, Data):
        return isinstance(result.data, BufferRef)
    if isinstance(result, Inference) and result.result is not None:
        return any(isinstance(tensor.data, BufferRef) for tensor in _tensors(result.result).values())
    return False


def fetch(result: R) -> Flow[R]:
    """The result with its bytes copied out of buffers, which are freed."""
    found: Any = result
    if isinstance(found, Data):
        data = yield from _copy(found.data, found.path)
        return cast("R", msgspec.structs.replace(found, data=data, path=""))
    tensors = {}
    for name, tensor in _tensors(found.result).items():
        data = yield from _copy(tensor.data, "")
        tensors[name] = msgspec.structs.replace(tensor, data=data)
    return cast("R", msgspec.structs.replace(found, result=_with_tensors(found.result, tensors)))


def _copy(data: bytes | BufferRef, path: str) -> Flow[bytes]:
    if isinstance(data, bytes):
        return data
    try:
        if not path:
            path = (yield from ask(calls.StatObject(handle=data.buffer))).fields["path"]
        if not data.length:
            return b""
        with SharedMapping(path) as mapping:
            return bytes(mapping.slice(data.offset, data.length))
    finally:
        yield from free([data.buffer])


def _tensors(result: TaskResultValue) -> Mapping[str, Tensor]:
    if isinstance(result, Embeddings):
        return {"": result.tensor}
    if isinstance(result, TensorsOut):
        return result.named
    return {}


def _with_tensors(result: TaskResultValue, tensors: dict[str, Tensor]) -> TaskResultValue:
    if isinstance(result, Embeddings):
        return msgspec.structs.replace(result, tensor=tensors[""])
    return msgspec.structs.replace(cast("TensorsOut", result), named=tensors)
