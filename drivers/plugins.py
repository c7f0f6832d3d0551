"""Finds driver packages by their metadata, imports the one that is asked for, and calls its hooks.

Announcing costs an entry point and nothing is imported before it is needed, so a package that cannot be imported harms
nobody who does not ask for it. `LLMOS_LOAD_DRIVERS` narrows what is found; `LLMOS_TRACE_HOOKS=1` prints each hook call.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import pluggy

from llmos.syscalls.errors import DriverFailed, Exists, LlmosError, NotFound

from . import hookspecs
from .contract import DeviceFactory, FileSystemFactory
from .hookspecs import DEVICES, FILESYSTEMS, MODELS, OPS, PROJECT


@dataclass(frozen=True)
class Operation:
    """One implementation of an op: `supports(spec)` says whether it serves a case, and why not."""

    op: str
    name: str
    run: Callable[..., Any]
    supports: Callable[..., tuple[bool, str]]


@dataclass(frozen=True)
class ModelClass:
    """A class of models that a package brings; see `hookspecs.register_models`."""

    architecture: str
    build: Callable[[Mapping[str, Any]], Any]
    batched: bool = False


@dataclass
class Plugin:
    """An imported package and what it registered."""

    name: str
    group: str
    manager: pluggy.PluginManager
    devices: dict[str, DeviceFactory] = field(default_factory=dict)
    filesystems: dict[str, FileSystemFactory] = field(default_factory=dict)
    ops: list[Operation] = field(default_factory=list)
    models: list[ModelClass] = field(default_factory=list)


def announced(group: str, environ: Mapping[str, str] = os.environ) -> list[EntryPoint]:
    """Entry points of a group, by name; only those that `LLMOS_LOAD_DRIVERS` lists, if it is set."""
    listed = environ.get("LLMOS_LOAD_DRIVERS")
    wanted = None if listed is None else {name.strip() for name in listed.split(",")}
    points = [point for point in entry_points(group=group) if wanted is None or point.name in wanted]
    return sorted(points, key=lambda point: point.name)


def load(name: str) -> Plugin:
    """Import the device or file system called `name`, whatever `LLMOS_LOAD_DRIVERS` says.

    Raises:
        NotFound: no installed package announces it.
        Exists: several do.
        DriverFailed: the package cannot be imported, or does not register what it announces.
    """
    found = [(group, point) for group in (DEVICES, FILESYSTEMS) for point in entry_points(group=group, name=name)]
    if not found:
        known = sorted({p.name for group in (DEVICES, FILESYSTEMS) for p in entry_points(group=group)})
        raise NotFound(f"no installed package announces a driver {name!r}; announced are: {', '.join(known) or 'none'}")
    if len(found) > 1:
        packages = ", ".join(_origin(point) for _group, point in found)
        raise Exists(f"driver {name!r} is announced by {packages}: uninstall all but one")
    group, point = found[0]
    plugin = _load(point, group)
    registered: Sequence[str] = list(plugin.devices if group == DEVICES else plugin.filesystems)
    if name not in registered:
        raise DriverFailed(
            f"{_origin(point)} announces {name!r} in {group} but registers {', '.join(registered) or 'nothing'}",
            cause="not registered",
        )
    return plugin


def load_ops(environ: Mapping[str, str] = os.environ) -> tuple[list[Operation], list[LlmosError]]:
    """Operations of all announced packages, and the errors of those that could not be loaded."""
    plugins, failures = _load_all(OPS, environ)
    return [operation for plugin in plugins for operation in plugin.ops], failures


def load_models(environ: Mapping[str, str] = os.environ) -> tuple[list[ModelClass], list[LlmosError]]:
    """Classes of models of all announced packages, and the errors of those that could not be loaded."""
    plugins, failures = _load_all(MODELS, environ)
    return [model for plugin in plugins for model in plugin.models], failures


def _load_all(group: str, environ: Mapping[str, str]) -> tuple[list[Plugin], list[LlmosError]]:
    plugins: list[Plugin] = []
    failures: list[LlmosError] = []
    for point in announced(group, environ):
        try:
            plugins.append(_load(point, group))
        except LlmosError as error:
            failures.append(error)
    return plugins, failures


def _load(point: EntryPoint, group: str) -> Plugin:
    plugin = Plugin(point.name, group, new_manager())
    hook = plugin.manager.hook
    try:
        plugin.manager.register(point.load(), point.name)
        plugin.manager.check_pending()
        if group == OPS:
            hook.register_ops(register=lambda *parts: plugin.ops.append(Operation(*parts)))
        elif group == MODELS:
            hook.register_models(register=lambda *parts, **more: plugin.models.append(ModelClass(*parts, **more)))
        elif group == FILESYSTEMS:
            hook.register_filesystems(register=plugin.filesystems.__setitem__)
        else:
            hook.register_devices(register=plugin.devices.__setitem__)
    except LlmosError:
        raise
    except Exception as error:
        # Foreign code may fail in any way, and must not take others with it.
        cause = f"{type(error).__name__}: {error}"
        text = f"driver {point.name!r} of {_origin(point)} cannot be loaded: {cause}"
        raise DriverFailed(text, cause=cause) from error
    return plugin


def new_manager() -> pluggy.PluginManager:
    """A plug-in manager with the project's hooks, which prints each call when `LLMOS_TRACE_HOOKS` is 1."""
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(hookspecs)
    if os.environ.get("LLMOS_TRACE_HOOKS") == "1":
        manager.add_hookcall_monitoring(lambda *_before: None, _trace)
    return manager


def _trace(outcome: pluggy.Result[Any], hook: str, called: Sequence[pluggy.HookImpl], given: Mapping[str, Any]) -> None:
    shown = ", ".join(f"{name}={value!r}" for name, value in given.items())
    by = ", ".join(implementation.plugin_name for implementation in called) or "nobody"
    result = f"raised {outcome.exception!r}" if outcome.exception is not None else repr(outcome.get_result())
    print(f"hook {hook}({shown}) by {by} -> {result}", file=sys.stderr, flush=True)


def _origin(point: EntryPoint) -> str:
    package = f"{point.dist.name} {point.dist.version}" if point.dist is not None else "an unknown package"
    return f"{package} ({point.value})"
