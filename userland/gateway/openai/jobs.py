"""`/v1/fine_tuning/jobs`: tuning tasks under the names of the API."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct
from starlette.requests import Request
from starlette.responses import Response

from llmos.syscalls.errors import NotFound
from llmos.syscalls.types import TuneRecipe

from ..core.body import json_body
from ..core.caller import caller_of, gateway_of
from ..core.errors import HttpError
from ..core.respond import json_response
from ..core.store import Job
from .files import stored_file
from .pages import page
from .writing import new_id

_STATES = {
    "queued": "queued", "running": "running", "checkpointing": "running", "paused": "paused", "done": "succeeded",
    "failed": "failed", "cancelled": "cancelled",
}  # fmt: skip
"""What the API calls the state of a task."""


class JobBody(Struct, frozen=True, kw_only=True):
    """What to tune on which file."""

    model: Annotated[str, Meta(min_length=1, max_length=512)]
    training_file: str
    validation_file: str | None = None
    hyperparameters: dict[str, Any] | None = None
    method: dict[str, Any] | None = None
    suffix: Annotated[str, Meta(max_length=64)] | None = None
    seed: int | None = None


async def create_job(request: Request) -> Response:
    """Start tuning; the result is a new model."""
    body = await json_body(request, JobBody)
    gateway, caller = gateway_of(request), caller_of(request)
    data = stored_file(request, body.training_file)
    model = await gateway.models.get(caller, body.model)
    id = new_id("ftjob")
    out = f"/models/{model.info.name}-{body.suffix or id}"
    task = await model.tune(recipe_of(body), data=data.path, out=out)
    row = Job(id, caller.key, task.info.id, msgspec.json.encode(body).decode(), time.time())
    gateway.store.add_job(row)
    return json_response(await _shown(request, row, task.info.state))


def recipe_of(body: JobBody) -> TuneRecipe:
    """The recipe that the body means. Numbers may be "auto"; what is named as in a `TuneRecipe` is taken as it is."""
    wanted = body.hyperparameters or {}
    for method in (body.method or {}).values():
        if isinstance(method, dict):
            wanted = {**wanted, **method.get("hyperparameters", {})}
    given = {name: value for name, value in wanted.items() if value != "auto"}
    fields: dict[str, Any] = {"method": "lora"}
    fields |= {name: value for name, value in given.items() if name in TuneRecipe.__struct_fields__}
    if (body.method or {}).get("type") == "dpo":
        fields["objective"] = "dpo"
    if "n_epochs" in given:
        fields["epochs"] = float(given["n_epochs"])
    if "batch_size" in given:
        fields["batch_size"] = int(given["batch_size"])
    if "learning_rate_multiplier" in given:
        fields["learning_rate"] = TuneRecipe(method="lora").learning_rate * given["learning_rate_multiplier"]
    if body.seed is not None:
        fields["seed"] = body.seed
    return msgspec.convert(fields, TuneRecipe)


async def list_jobs(request: Request) -> Response:
    """The key's jobs, the newest first."""
    rows = gateway_of(request).store.jobs(caller_of(request).key)
    states = await _states(request)
    shown = page(request, [{"id": row.id, "row": row} for row in rows], 20)
    shown["data"] = [await _shown(request, each["row"], states.get(each["row"].task, "")) for each in shown["data"]]
    return json_response(shown)


async def get_job(request: Request) -> Response:
    """One job."""
    row = _job(request)
    return json_response(await _shown(request, row, (await _states(request)).get(row.task, "")))


async def cancel_job(request: Request) -> Response:
    """End it."""
    return await _act(request, "cancel")


async def pause_job(request: Request) -> Response:
    """Let it rest."""
    return await _act(request, "pause")


async def resume_job(request: Request) -> Response:
    """Let it go on."""
    return await _act(request, "resume")


async def _act(request: Request, action: str) -> Response:
    row = _job(request)
    system = await gateway_of(request).sessions.system(caller_of(request))
    task = await system.task(row.task)
    if action == "cancel":
        await task.cancel()
    elif action == "pause":
        await task.pause()
    else:
        await task.resume()
    return json_response(await _shown(request, row, (await task.stat()).state))


async def events(request: Request) -> Response:
    """What the journal says of the job, the newest first."""
    row = _job(request)
    system = await gateway_of(request).sessions.system(caller_of(request))
    records = await system.journal(about=row.task, limit=1000)
    shown = [
        {
            "object": "fine_tuning.job.event",
            "id": f"ftevent-{record.seq}",
            "created_at": int(record.at),
            "level": "warn" if record.level == "warning" else record.level,
            "message": record.text,
            "type": "message",
            "data": record.fields,
        }
        for record in reversed(records)
    ]
    return json_response(page(request, shown, 20))


async def checkpoints(request: Request) -> Response:
    """The points at which held-out rows were judged, the newest first; the job keeps the checkpoints to itself."""
    row = _job(request)
    run = await _run(request, row)
    shown = [
        {
            "object": "fine_tuning.job.checkpoint",
            "id": f"ftckpt-{row.task}-{point['step']:g}",
            "created_at": int(point["at"]),
            "fine_tuned_model_checkpoint": _model(run),
            "fine_tuning_job_id": row.id,
            "step_number": int(point["step"]),
            "metrics": {
                "step": point["step"], "train_loss": point.get("loss"), "full_valid_loss": point["eval_loss"],
            },
        }
        for point in reversed(run.get("curve", []))
        if "eval_loss" in point
    ]  # fmt: skip
    return json_response(page(request, shown, 10))


def _job(request: Request) -> Job:
    id = request.path_params["job"]
    row = gateway_of(request).store.job(caller_of(request).key, id)
    if row is None:
        raise HttpError(404, "not_found_error", "not_found", f"this key has no job {id[:80]!r}", "fine_tuning_job_id")
    return row


async def _states(request: Request) -> dict[str, str]:
    """The states of the tasks that still exist."""
    system = await gateway_of(request).sessions.system(caller_of(request))
    try:
        return {info.id: info.state for info in await system.tasks()}
    except NotFound:
        return {}


async def _run(request: Request, row: Job) -> dict[str, Any]:
    """What the kernel has recorded of the job; nothing where that is gone."""
    system = await gateway_of(request).sessions.system(caller_of(request))
    try:
        run: dict[str, Any] = msgspec.json.decode(await system.read(f"/sys/runs/{row.task}"))
    except NotFound:
        return {}
    return run


def _model(run: Mapping[str, Any]) -> str | None:
    """The name under which the result is asked for."""
    if run.get("state") != "done":
        return None
    return str(run["out"]["path"].removeprefix("/models/").partition("@")[0])


async def _shown(request: Request, row: Job, state: str) -> dict[str, Any]:
    body = msgspec.json.decode(row.body, type=dict[str, Any])
    run = await _run(request, row)
    state, error = state or run.get("state", ""), run.get("error")
    left = run.get("values", {}).get("left_s") if state == "running" else None
    return {
        "id": row.id,
        "object": "fine_tuning.job",
        "created_at": int(row.created),
        "finished_at": int(run["ended"]) if run.get("ended") else None,
        "model": body["model"],
        "fine_tuned_model": _model(run),
        "organization_id": "llmos",
        "status": _STATES.get(state, "failed"),
        "training_file": body["training_file"],
        "validation_file": body.get("validation_file"),
        "hyperparameters": body.get("hyperparameters") or {},
        "result_files": [],
        "trained_tokens": run["tokens"] if run.get("state") == "done" else None,
        "error": {"code": error["name"], "message": error["message"], "param": None} if error else None,
        "seed": body.get("seed") or 0,
        "estimated_finish": int(time.time() + left) if left is not None else None,
        "integrations": [],
        "llmos": {
            "task": row.task, "step": run.get("step", 0), "steps": run.get("steps", 0),
            "values": run.get("values", {}),
        },
    }
