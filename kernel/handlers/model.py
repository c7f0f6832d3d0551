"""Models: load, unload, transform."""

from __future__ import annotations

import msgspec

from llmos.syscalls import calls
from llmos.syscalls.errors import Denied, Unavailable
from llmos.syscalls.types import Freed, Handle, Kind, ModelInfo, Plan, Right, Task

from ..locating import locate, release
from ..objects import DeviceObject, ModelObject
from ..requests import Request
from ..supervisor import Driver, DriverState
from .registry import implements


@implements(calls.LoadModel)
async def load_model(request: Request, call: calls.LoadModel) -> ModelInfo:
    kernel, options = request.kernel, call.options
    base = kernel.model_of(request.entries["base"]) if call.base is not None else None
    driver = base.driver if base is not None else _device(request)
    if options.dry_run:
        return await _dry_run(request, call, driver)
    await kernel.supervisor.wait_ready(driver)
    if base is not None:
        await kernel.models.wake(base, request)
    model = await kernel.models.load(request, driver, options, base, call.path)
    if not kernel.models.ready_to_run(model):
        await kernel.models.wake(model, request)
    if call.device is None and base is None:
        request.because("device.placed", f"{driver.name} was chosen", "accelerators before the CPU")
    return model_info(request, model)


def _device(request: Request) -> Driver:
    """The device asked for, or the one that policy places the model on: accelerators before the CPU, null last."""
    kernel, session = request.kernel, request.session
    if "device" in request.entries:
        found = kernel.object_of(request.entries["device"])
        assert isinstance(found, DeviceObject)
        return found.driver
    allowed = [
        found
        for entry in kernel.handles.of_session(session.id)
        if entry.kind is Kind.DEVICE and Right.CREATE in entry.rights
        for found in [kernel.objects[entry.object]]
        if isinstance(found, DeviceObject)
    ]
    if not allowed:
        raise Denied("load_model: this session holds no device with the right create", missing="create")
    usable = [d for d in allowed if d.driver.state not in (DriverState.FAILED, DriverState.STOPPED)]
    if not usable:
        states = ", ".join(f"{d.name} is {d.driver.state.value}" for d in allowed)
        raise Unavailable(f"load_model: no device can take a model now: {states}", retry_after_ms=1000)
    return min(usable, key=lambda d: (_preference(d.name), d.name)).driver


def _preference(name: str) -> int:
    return 2 if name.startswith("null") else 1 if name.startswith("cpu") else 0


async def _dry_run(request: Request, call: calls.LoadModel, driver: Driver) -> ModelInfo:
    kernel = request.kernel
    files, located = await locate(kernel, request.session, call.path, call.options.draft)
    try:
        plan = await kernel.models.plan(driver, located, call.options, "planned")
    finally:
        release(files, located)
    if not plan.fits:
        idle = kernel.residency.victims(driver.name, plan.needed - plan.free, kernel.runner.clock())
        names = [kernel.models.by_id[each.model].name for each in idle]
        plan = msgspec.structs.replace(plan, fits=bool(idle), would_evict=names)
    manifest = located.manifest
    return ModelInfo(
        handle=Handle(0),
        id="",
        path=call.path,
        version=located.version,
        device=driver.name,
        architecture=str(manifest.get("architecture", "")),
        tasks=[str(task) for task in manifest.get("tasks", [])],
        context=int(manifest.get("context") or 0),
        parameters=int(manifest.get("parameters") or 0),
        plan=plan,
    )


def model_info(request: Request, model: ModelObject) -> ModelInfo:
    kernel, loaded = request.kernel, model.loaded
    assert loaded is not None
    rows = [row for row in kernel.ledger.rows(model.driver.name) if row.owner == model.host_id]
    return ModelInfo(
        handle=kernel.sessions.give(request.session, model),
        id=model.id,
        path=model.path,
        version=model.version,
        device=model.driver.name,
        architecture=loaded.architecture,
        tasks=loaded.tasks,
        context=loaded.context,
        parameters=loaded.parameters,
        rung=loaded.rung,
        rung_reasons=loaded.rung_reasons,
        bytes=rows,
        plan=Plan(rows=rows, fits=True),
        name=model.name,
        chat=loaded.chat,
    )


@implements(calls.UnloadModel)
async def unload_model(request: Request, call: calls.UnloadModel) -> Freed:
    model = request.kernel.model_of(request.entries["model"])
    return Freed(bytes=await request.kernel.models.unload(model, force=call.force))


@implements(calls.TransformModel)
async def transform_model(request: Request, call: calls.TransformModel) -> Task:
    return await request.kernel.transforms.start(request, call)
