"""Each hook is specified, documented with its exact signature, and seen to be called."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from llmos.drivers import hookspecs
from llmos.drivers.plugins import new_manager

HOOKS = {
    name: function
    for name, function in vars(hookspecs).items()
    if inspect.isfunction(function) and hasattr(function, f"{hookspecs.PROJECT}_spec")
}
CALLED = """
    import sys
    from llmos.drivers.devices.null import NullDevice
    from llmos.drivers.hookspecs import hookimpl

    def note(*what):
        print(*what, file=sys.stderr, flush=True)

    @hookimpl
    def register_devices(register):
        note("register_devices")
        register("hooked0", NullDevice)

    @hookimpl
    def driver_started(name):
        note("driver_started", name)

    @hookimpl
    def driver_stopped(name):
        note("driver_stopped", name)

    @hookimpl
    def wrap_send(device, send):
        note("wrap_send", type(device).__name__)
        def noting(frames):
            note("sent", len(frames))
            send(frames)
        return noting
"""


def test_the_hooks_are_few() -> None:
    assert set(HOOKS) == {
        "driver_started", "driver_stopped", "register_devices", "register_filesystems", "register_models",
        "register_ops", "wrap_send",
    }  # fmt: skip
    assert set(HOOKS) == {name for name in vars(new_manager().hook) if not name.startswith("_")}


@pytest.mark.parametrize("name", sorted(HOOKS))
def test_a_hook_is_documented_with_its_arguments(name: str, root: Path) -> None:
    arguments = ", ".join(inspect.signature(HOOKS[name]).parameters)
    assert f"`{name}({arguments})`" in (root / "docs" / "write-a-driver.md").read_text()
    assert (HOOKS[name].__doc__ or "").strip()


def test_a_host_calls_the_hooks_of_a_device(host_of: Callable[..., Any], package: Callable[..., Any]) -> None:
    """`register_filesystems` is seen in test_file_calls.py, `register_ops` and `register_models` in test_plugins.py."""
    source = CALLED.replace("NullDevice)", "type('Device', (NullDevice,), {'name': 'hooked0'}))")
    kernel = host_of("hooked0", package("hooked0", source).environ)
    kernel.start()
    kernel.call("stop")
    assert kernel.wait() == 0
    lines = kernel.output()[1].splitlines()
    assert lines[:3] == ["register_devices", "wrap_send Device", "driver_started hooked0"]
    assert set(lines[3:-2]) == {"sent 2"} and lines[-2:] == ["driver_stopped hooked0", "sent 2"]
