"""Models: load, unload, transform."""

from __future__ import annotations

from llmos.syscalls import calls
from llmos.syscalls.errors import Denied
from llmos.syscalls.types import Freed, Handle, Kind, ModelInfo, Plan, Reason, Right, Task

from ..joining import take_over
from ..locating import locate, release
from ..memory.planning import dry_run
from ..objects import DeviceObject, ModelObject
from ..placing import Seat, place
from ..requests import Request
from ..supervisor import Driver
from ..unloading import unload
from .registry import implements


@implements(calls.LoadModel)
async def load_model(request: Request, call: calls.LoadModel) -> ModelInfo:
    kernel, options = request.kernel, call.options
    base = kernel.model_of(request.entries["base"]) if call.base is not None else None
    driver, placed = (base.driver, []) if base is not None else _device(request)
    if options.dry_run:
        return await _dry_run(request, call, driver, base)
    await kernel.supervisor.wait_ready(driver)
    if base is not None:
        await kernel.models.wake(base, request)
    model, made = await kernel.models.load(request, driver, options, base, call.path)
    info = model_info(request, model)
    for reason in placed if made else ():
        request.decided(reason, (model.id, driver.name), "info")
    if not made:
        take_over(request, model, options, info.handle)
    return info


def _device(request: Request) -> tuple[Driver, list[Reason]]:
    """The device asked for, or the one that policy places the model on, and why."""
    kernel, session = request.kernel, request.session
    if "device" in request.entries:
        found = kernel.object_of(request.entries["device"])
        assert isinstance(found, DeviceObject)
        return found.driver, []
    allowed = [
        found.driver
        for entry in kernel.handles.of_session(session.id)
        if entry.kind is Kind.DEVICE and Right.CREATE in entry.rights
        for found in [kernel.objects[entry.object]]
        if isinstance(found, DeviceObject)
    ]
    if not allowed:
        raise Denied("load_model: this session holds no device with the right create", missing="create")
    name, reason = place([Seat(each.name, each.state.value, each.cause) for each in allowed])
    return kernel.supervisor.drivers[name], [reason]


async def _dry_run(
    request: Request, call: calls.LoadModel, driver: Driver, base: ModelObject | None
) -> ModelInfo:
    kernel = request.kernel
    files, located = await locate(kernel, request.session, call.path, call.options.draft)
    try:
        plan = await dry_run(kernel, driver, call.path, located, call.options, base)
    finally:
        release(files, located)
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
    return Freed(bytes=await unload(request.kernel, model, force=call.force))


@implements(calls.TransformModel)
async def transform_model(request: Request, call: calls.TransformModel) -> Task:
    return await request.kernel.transforms.start(request, call)
