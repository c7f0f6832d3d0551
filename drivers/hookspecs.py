"""The hooks a driver package implements. They run once, when its host starts; the data path uses plain methods.

A package announces itself by an entry point in the group `llmos.devices`, `llmos.filesystems`, `llmos.ops` or
`llmos.models`. The entry point's name is the name of the device or file system, so the kernel knows it without
importing anything.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pluggy

from .contract import Device, DeviceFactory, FileSystemFactory

PROJECT = "llmos"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)

DEVICES = "llmos.devices"
FILESYSTEMS = "llmos.filesystems"
OPS = "llmos.ops"
MODELS = "llmos.models"
GROUPS = (DEVICES, FILESYSTEMS, OPS, MODELS)

Send = Callable[[Sequence[bytes]], None]
"""Puts the frames of one message on the wire."""


@hookspec
def register_devices(register: Callable[[str, DeviceFactory], None]) -> None:
    """Call `register(name, factory)` for each device; the name is the entry point's."""


@hookspec
def register_filesystems(register: Callable[[str, FileSystemFactory], None]) -> None:
    """Call `register(name, factory)` for each file system; `factory(source, config)` opens one source."""


@hookspec
def register_ops(register: Callable[[str, str, Callable[..., Any], Callable[..., tuple[bool, str]]], None]) -> None:
    """Call `register(op, name, implementation, supports)`; `supports(spec)` says whether it serves a case and why."""


@hookspec
def register_models(register: Callable[..., None]) -> None:
    """Call `register(architecture, build, batched=False)` for each class that models may name in `config.json`.

    `build(config)` makes a `torch.nn.Module` for named tensors. `batched`: the first dimension of all of them, in and
    out, is that of the batch.
    """


@hookspec
def driver_started(name: str) -> None:
    """The driver is about to accept work."""


@hookspec
def driver_stopped(name: str) -> None:
    """The driver has given everything back."""


@hookspec(firstresult=True)
def wrap_send(device: Device, send: Send) -> Send | None:
    """Return a function to use instead of `send`: the seam for drivers that inject faults into the wire."""
