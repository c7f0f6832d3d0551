"""What `control_object` can do, one table per kind of object: right, options, and the function."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from llmos.syscalls.describe import suggest
from llmos.syscalls.driver import HostInspect
from llmos.syscalls.errors import BadArgument, BadState, NotSupported
from llmos.syscalls.types import Kind, Limits, Right

from .following import CURRENT, follow, followers
from .idling import keep_alive
from .ledger import size_text
from .memory.rows import size_device
from .objects import ContextObject, DeviceObject, DriverObject, ModelObject, MountObject, SessionObject, TaskObject
from .recipes import names_of
from .requests import Request
from .unloading import unload

Count = Annotated[int, Meta(ge=0)]
Seconds = Annotated[float, Meta(ge=0, le=1e9)]
KeepAlive = Annotated[float, Meta(ge=-1, le=1e9)]
Nice = Annotated[int, Meta(ge=-20, le=19)]
Run = Callable[[Request, Any, Mapping[str, Any]], Awaitable[Mapping[str, Any] | None]]
"""Does it; what it answers is shown as `report` among the object's fields."""


@dataclass(frozen=True)
class Action:
    """One action. `options` are the allowed ones with their types; all others are errors."""

    name: str
    run: Run
    right: Right = Right.MANAGE
    options: Mapping[str, Any] | None = None
    required: tuple[str, ...] = ()

    def check(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The options, converted. Raises BadArgument."""
        known = self.options or {}
        for name in given:
            if name not in known:
                takes = ", ".join(known) or "none"
                hint = suggest(name, known) if known else "it takes none"
                raise BadArgument(f"{self.name}: unknown option {name!r}; {hint}", name=name, want=takes)
        for name in self.required:
            if name not in given:
                raise BadArgument(f"{self.name}: the option {name!r} is missing", name=name, want="a value")
        checked = {}
        for name, value in given.items():
            try:
                checked[name] = msgspec.convert(value, known[name])
            except msgspec.ValidationError as error:
                text = str(error).replace("`", "")
                raise BadArgument(
                    f"{self.name}: option {name!r} is {value!r}: {text}", name=name, got=repr(value)[:80], want=text
                ) from None
        return checked


def find_action(kind: Kind, name: str) -> Action:
    """Raises NotSupported with the actions that the kind has."""
    table = ACTIONS.get(kind, {})
    action = table.get(name)
    if action is None:
        known = ", ".join(sorted(table)) or "none"
        hint = suggest(name, table) if table else "it has none"
        raise NotSupported(f"a {kind.value} has no action {name!r}; {hint}", why=f"actions: {known}")
    return action


# ---- drivers and devices


async def _driver_start(request: Request, found: DriverObject, options: Mapping[str, Any]) -> None:
    request.kernel.supervisor.start(found.driver)


async def _driver_stop(request: Request, found: DriverObject, options: Mapping[str, Any]) -> None:
    request.kernel.supervisor.stop(found.driver, options.get("drain_s", 0.0))


async def _driver_restart(request: Request, found: DriverObject, options: Mapping[str, Any]) -> None:
    request.kernel.supervisor.restart(found.driver)


async def _driver_reset(request: Request, found: DriverObject, options: Mapping[str, Any]) -> None:
    request.kernel.supervisor.reset(found.driver)


async def _device_limit(request: Request, found: DeviceObject, options: Mapping[str, Any]) -> None:
    kernel, facts = request.kernel, found.driver.facts
    if facts is None:
        raise BadState(f"device {found.name} is {found.driver.state.value}", state=found.driver.state.value)
    found.limit = options["bytes"]
    size_device(kernel.ledger, found, facts)
    limit = found.limit or facts.memory_bytes
    text = f"models may take {size_text(limit)} of {found.name}" + ("" if found.limit else ": it has no limit any more")
    request.decided(kernel.reason("device.limit", text, bytes=limit), [found.name], "info")


async def _device_inspect(request: Request, found: DriverObject, options: Mapping[str, Any]) -> Mapping[str, Any]:
    driver = await request.kernel.supervisor.wait_ready(found.driver)
    assert driver.link is not None
    return (await driver.link.call(HostInspect(topic=options["topic"]))).fields


# ---- models and contexts


async def _sleep(request: Request, found: ModelObject, options: Mapping[str, Any]) -> None:
    reason = request.because("model.asleep", f"{request.session.program!r} asked for it ({request.session.id})")
    await request.kernel.runner.detached(request.kernel.models.sleep(found, reason))


async def _wake(request: Request, found: ModelObject, options: Mapping[str, Any]) -> None:
    await request.kernel.supervisor.wait_ready(found.driver)
    await request.kernel.models.wake(found, request)


async def _pin(request: Request, found: ModelObject, options: Mapping[str, Any]) -> None:
    request.kernel.residency.pin(found.id, True, request.kernel.runner.clock())


async def _unpin(request: Request, found: ModelObject, options: Mapping[str, Any]) -> None:
    request.kernel.residency.pin(found.id, False, request.kernel.runner.clock())


async def _keep_alive(request: Request, found: ModelObject, options: Mapping[str, Any]) -> None:
    keep_alive(request.kernel, found, options["seconds"])


async def _swap(request: Request, found: ModelObject, options: Mapping[str, Any]) -> None:
    await request.kernel.runner.detached(request.kernel.swaps.swap(request, found, options["to"]))


async def _adapter_drop(request: Request, found: ModelObject, options: Mapping[str, Any]) -> None:
    models = request.kernel.models
    adapter = models.named(options["name"])
    if adapter is None or adapter.base is not found:
        names = names_of(models.adapters_of(found))
        raise BadArgument(
            f"{found.name} has no adapter {options['name']!r}; it has {names}",
            name="name",
            got=options["name"],
            want=names,
        )
    await unload(request.kernel, adapter, force=False)


async def _context_drop(request: Request, found: ContextObject, options: Mapping[str, Any]) -> None:
    request.kernel.holdings.drop_context(found)


# ---- tasks


async def _pause(request: Request, found: TaskObject, options: Mapping[str, Any]) -> None:
    request.kernel.tasks.pause(found)


async def _resume(request: Request, found: TaskObject, options: Mapping[str, Any]) -> None:
    request.kernel.tasks.resume(found)


async def _priority(request: Request, found: TaskObject, options: Mapping[str, Any]) -> None:
    request.kernel.tasks.priority(found, options["nice"])


async def _checkpoint(request: Request, found: TaskObject, options: Mapping[str, Any]) -> None:
    request.kernel.tunes.checkpoint(found)


# ---- mounts and sessions


def _filesystem(action: str) -> Run:
    async def run(request: Request, found: MountObject, options: Mapping[str, Any]) -> Mapping[str, Any]:
        return await request.kernel.files.control(found.point, action, dict(options))

    return run


async def _alias(request: Request, found: MountObject, options: Mapping[str, Any]) -> Mapping[str, Any]:
    return await _followed(request, found, "alias", options, (str(options["alias"]),))


async def _rollback(request: Request, found: MountObject, options: Mapping[str, Any]) -> Mapping[str, Any]:
    return await _followed(request, found, "rollback", options, CURRENT)


async def _followed(
    request: Request, found: MountObject, action: str, options: Mapping[str, Any], selectors: tuple[str, ...]
) -> Mapping[str, Any]:
    """Change what a name means; with `reload`, the loaded models that follow the name go over."""
    kernel, rest = request.kernel, {name: value for name, value in options.items() if name != "reload"}
    if not options.get("reload"):
        return await kernel.files.control(found.point, action, rest)
    models = followers(kernel, request.session, found.point, options["name"], selectors)
    report = await kernel.files.control(found.point, action, rest)
    aliases = report.get("aliases")
    version = aliases.get(selectors[0]) if isinstance(aliases, Mapping) else report.get("version")
    return {**report, "reloaded": await follow(request, models, str(version)) if version else []}


async def _session_limit(request: Request, found: SessionObject, options: Mapping[str, Any]) -> None:
    """A session may lower its own limits; raising them is policy's matter."""
    now, wanted = found.session.limits, Limits(**options)
    for name in options:
        before, after = getattr(now, name), getattr(wanted, name)
        if before and (after == 0 or after > before):
            raise BadArgument(
                f"limit: {name} may only be lowered, it is {before}", name=name, got=str(after), want="less"
            )
    found.session.limits = msgspec.structs.replace(now, **options)
    request.kernel.quotas.changed(found.session.id)


_LOWERED = [name for name in Limits.__struct_fields__ if name != "weight"]

_DRIVER = {
    "start": Action("start", _driver_start),
    "stop": Action("stop", _driver_stop, options={"drain_s": Seconds}),
    "restart": Action("restart", _driver_restart),
    "reset": Action("reset", _driver_reset),
}

ACTIONS: Mapping[Kind, Mapping[str, Action]] = {
    Kind.DRIVER: _DRIVER,
    Kind.DEVICE: {
        "limit": Action("limit", _device_limit, options={"bytes": Count}, required=("bytes",)),
        "inspect": Action("inspect", _device_inspect, Right.READ, {"topic": str}, ("topic",)),
    },
    Kind.MODEL: {
        "sleep": Action("sleep", _sleep),
        "wake": Action("wake", _wake),
        "pin": Action("pin", _pin),
        "unpin": Action("unpin", _unpin),
        "keep_alive": Action("keep_alive", _keep_alive, options={"seconds": KeepAlive}, required=("seconds",)),
        "swap": Action("swap", _swap, options={"to": str}, required=("to",)),
        "adapter_drop": Action("adapter_drop", _adapter_drop, Right.WRITE, {"name": str}, ("name",)),
    },
    Kind.CONTEXT: {"drop": Action("drop", _context_drop)},
    Kind.TASK: {
        "pause": Action("pause", _pause),
        "resume": Action("resume", _resume),
        "checkpoint": Action("checkpoint", _checkpoint),
        "priority": Action("priority", _priority, options={"nice": Nice}, required=("nice",)),
    },
    Kind.MOUNT: {
        "alias": Action(
            "alias", _alias, Right.WRITE, {"name": str, "alias": str, "version": str, "reload": bool}, ("name", "alias")
        ),
        "rollback": Action(
            "rollback", _rollback, Right.WRITE, {"name": str, "version": str, "reload": bool}, ("name",)
        ),
        "tag": Action(
            "tag", _filesystem("tag"), Right.WRITE, {"name": str, "tag": str, "version": str, "remove": bool},
            ("name", "tag"),
        ),
        "fsck": Action("fsck", _filesystem("fsck"), options={"name": str, "repair": bool}),
        "gc": Action("gc", _filesystem("gc"), options={"name": str, "keep": Count}),
    },
    Kind.SESSION: {
        "limit": Action("limit", _session_limit, options=dict.fromkeys(_LOWERED, Count)),
    },
}
