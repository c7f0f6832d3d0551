"""Weights from files to the device: while one pinned buffer is being sent, the next is filled.

A copy to a GPU is as fast as the bus from memory that cannot be paged out (pinned), and then goes on beside other work.
Weights are in mapped files, so filling a buffer is reading the file. Two buffers keep both sides busy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import torch
from torch import Tensor

from ...engine.place import Report

BUFFER_BYTES = 64 << 20


class Lanes(Protocol):
    """The way to a device and back."""

    def buffer(self, bytes: int) -> Tensor:
        """Host memory [bytes] uint8 that the device can copy from and to."""

    def send(self, source: Tensor, target: Tensor) -> None:
        """Begin a copy to the device or from it; copies are done in their order."""

    def mark(self) -> Callable[[], None]:
        """What waits until all copies begun so far are done."""


class StreamLanes:
    """A stream of its own on a GPU."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream: Any = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def buffer(self, bytes: int) -> Tensor:
        return torch.empty(bytes, dtype=torch.uint8, pin_memory=True)

    def send(self, source: Tensor, target: Tensor) -> None:
        self._stream.wait_stream(torch.cuda.current_stream(self._device))  # memory of the target may be in use there
        with torch.cuda.stream(self._stream):
            target.copy_(source, non_blocking=True)

    def mark(self) -> Callable[[], None]:
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record(self._stream)
        wait: Callable[[], None] = event.synchronize
        return wait


class DoubleBuffer:
    """Sends what lies in ordinary host memory."""

    def __init__(self, lanes: Lanes, bytes: int = BUFFER_BYTES) -> None:
        self._lanes = lanes
        self._buffers = [lanes.buffer(bytes), lanes.buffer(bytes)]
        self._sent: list[Callable[[], None] | None] = [None, None]
        self._turn = self._used = 0

    def send(self, source: Tensor, target: Tensor) -> None:
        """Copy bytes [N] to the device; the source is read before this returns."""
        done = 0
        while done < len(source):
            buffer = self._buffers[self._turn]
            count = min(len(source) - done, len(buffer) - self._used)
            part = buffer[self._used : self._used + count]
            part.copy_(source[done : done + count])
            self._lanes.send(part, target[done : done + count])
            self._used += count
            done += count
            if self._used == len(buffer):
                self._switch()

    def finish(self) -> None:
        """Wait until all is there."""
        self._lanes.mark()()

    def _switch(self) -> None:
        """Go on in the other buffer, once what it holds is sent."""
        self._sent[self._turn] = self._lanes.mark()
        self._turn, self._used = 1 - self._turn, 0
        waits = self._sent[self._turn]
        if waits is not None:
            waits()


def move(
    module: torch.nn.Module, device: torch.device, lanes: Lanes, report: Report, bytes: int = BUFFER_BYTES
) -> None:
    """Bring the parameters and buffers of a module to a device, in place; what is shared stays shared.

    A module that is there already is left alone.
    """
    places = [(held, name) for held, name in _places(module) if held[name].device != device]
    unique = {id(held[name]): held[name] for held, name in places}
    total = sum(tensor.nbytes for tensor in unique.values())
    buffer, moved, done = DoubleBuffer(lanes, min(bytes, max(1, total))), dict[int, Tensor](), 0
    for key, tensor in unique.items():
        moved[key] = _moved(tensor, device, buffer)
        done += tensor.nbytes
        report(done, total)
    buffer.finish()
    for held, name in places:
        held[name] = moved[id(held[name])]


def _moved(tensor: Tensor, device: torch.device, buffer: DoubleBuffer) -> Tensor:
    target = torch.empty(tensor.shape, dtype=tensor.dtype, device=device)
    buffer.send(as_bytes(tensor.detach().contiguous()), as_bytes(target))
    if isinstance(tensor, torch.nn.Parameter):
        return torch.nn.Parameter(target, requires_grad=tensor.requires_grad)
    return target


def _places(module: torch.nn.Module) -> Iterator[tuple[dict[str, Any], str]]:
    """Where a module and its parts hold tensors."""
    for part in module.modules():
        for held in (part._parameters, part._buffers):
            yield from ((held, name) for name, tensor in held.items() if tensor is not None)


def as_bytes(tensor: Tensor) -> Tensor:
    """The memory of a contiguous tensor as [N] uint8."""
    return tensor.flatten().view(torch.uint8)
