"""What a driver need not write: the defaults of the contract."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
from llmos.drivers.contract import Device, FileSystem, OpenHandle
from llmos.syscalls.errors import NotFound, NotSupported

DEVICE_METHODS = {"facts", "plan", "load", "unload", "submit", "cancel", "step", "memory"}
FILESYSTEM_METHODS = {"open", "list", "stat", "locate"}


def made(kind: type[Any]) -> Any:
    """An instance of a class with its abstract methods filled in."""
    methods = dict.fromkeys(kind.__abstractmethods__, lambda self, *given: None)
    return type("Made", (kind,), cast(dict[str, Any], methods))()


def test_what_a_driver_must_write() -> None:
    assert Device.__abstractmethods__ == DEVICE_METHODS
    assert FileSystem.__abstractmethods__ == FILESYSTEM_METHODS
    assert OpenHandle.__abstractmethods__ == {"read", "close"}


@pytest.mark.parametrize(
    ("method", "given"), [("sleep", ["m"]), ("wake", ["m", print]), ("open_context", ["c", "m", "", 1])]
)
def test_what_a_device_leaves_out_is_not_supported(method: str, given: list[Any]) -> None:
    with pytest.raises(NotSupported) as caught:
        getattr(made(Device), method)(*given)
    assert caught.value.why


@pytest.mark.parametrize(
    ("method", "given"),
    [
        ("remove", ["/a"]), ("search", ["/a", "x", {}, 1]), ("stage", ["/a"]), ("commit", ["t", {}]),
        ("control", ["gc", {}]),
    ],
)  # fmt: skip
def test_what_a_file_system_leaves_out_is_not_supported(method: str, given: list[Any]) -> None:
    with pytest.raises(NotSupported) as caught:
        getattr(made(FileSystem), method)(*given)
    assert caught.value.why


def test_what_needs_no_doing_may_be_left_out() -> None:
    device, system, handle = made(Device), made(FileSystem), made(OpenHandle)
    device.start("d0", 1, {})
    device.stop()
    system.release("token")
    handle.discard()
    assert device.step_seconds() > 0
    with pytest.raises(NotFound):
        device.drop_context("c")
    with pytest.raises(NotSupported):
        handle.write(0, b"x")


def test_the_contract_needs_nothing_but_the_standard_library_and_the_errors(root: Path) -> None:
    text = (root / "drivers" / "contract.py").read_text()
    assert "msgspec" not in text and "zmq" not in text and "import torch" not in text
