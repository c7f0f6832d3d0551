"""A gateway that makes its answers up, so that the pages can be seen and tested without a kernel.

    python tests/userland/dashboard/fake_gateway.py [--port N] [--ready-fd N]

It answers what the dashboard asks, in the form of the real one: the live stream with figures that move, a journal, two
tuning runs with curves, models to search, plans, chats that stream, and the errors of services that come later. The
key is `llmos_demo`. `POST /fake/kernel {"state": "gone"}` plays a lost kernel, `"running"` its return.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import socket
import time
from collections.abc import AsyncIterator
from typing import Any

import uvicorn
from canned import ADVICE, DEVICES, DRIVERS, JOURNAL, MODELS, QUEUES, STORED, TASKS, WHY
from canned_runs import RUNS
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from llmos.userland.dashboard import pages
from llmos.userland.gateway.native.past import figures_of

KEY = "llmos_demo"
SCOPES = ["infer", "read", "load", "files", "tune", "manage"]
GIB = 1 << 30
CACHED = {"prompt_tokens_details": {"cached_tokens": 9}}
LOREM = (
    "The kernel keeps one ledger of bytes. Every weight, every page of the cache and every lease is a row of it, so "
    "nothing that was admitted runs out of memory.\n\n```python\nwith boot() as system:\n    model = system.load_model"
    '("/models/tiny")\n```\n\nA model that sleeps leaves the device, and is back within a second when it is needed.'
)


class Fake:
    """What changes: whether the kernel is there, and who is cancelled."""

    def __init__(self) -> None:
        self.state = "running"
        self.since = time.time() - 8040
        self.calls: list[tuple[str, Any]] = []
        self.cancelled = 0
        self.tasks = {task["id"]: task["state"] for task in TASKS}
        self.changed = asyncio.Event()

    def overview(self, at: float | None = None) -> dict[str, Any]:
        now = time.time() if at is None else at
        swing = 0.5 + 0.5 * math.sin(now / 9)
        models = [dict(model) for model in MODELS]
        models[0].update(tokens_per_s=41.2, throughput=38 + 9 * swing, running=2 + round(2 * swing), used=now - 0.4)
        models[1].update(tokens_per_s=13.5, throughput=11 * (1 - swing), used=now - 12)
        models[2].update(used=now - 5400)
        rates = {
            "requests_per_s": 2.4 + swing, "tokens_per_s": 46 + 14 * swing, "errors_per_s": 0.0,
            "queue": round(3 * swing), "first_token_p50_s": 0.062 + 0.02 * swing,
            "first_token_p95_s": 0.18 + 0.05 * swing, "request_p50_s": 1.1 + 0.3 * swing, "request_p95_s": 3.9 + swing,
        }  # fmt: skip
        step = int(now - self.since) % 1200
        tasks = [{**task, "state": self.tasks[task["id"]]} for task in TASKS]
        tasks[0]["progress"] = {"done": step, "total": 1200, "unit": "steps", "stage": "train"}
        alerts = [{"id": "a1", "level": "warning", "about": "cuda0",
                   "text": "cuda0 has been restarted once in the last hour"}]  # fmt: skip
        kernel = {"state": self.state, "version": "0.1.0", "pid": 4711, "since": self.since}
        return {"at": now, "kernel": kernel, "devices": DEVICES, "drivers": DRIVERS, "models": models, "tasks": tasks,
                "rates": rates, "alerts": alerts, "advice": ADVICE, "queues": QUEUES}  # fmt: skip


def loss(run: int, step: int) -> float:
    wave = 0.06 * math.sin(step / 7 + run) + 0.03 * math.sin(step / 3)
    return (0.9 + 0.25 * run) + 2.1 * math.exp(-step / (160 + 90 * run)) + wave


def point(run: int, step: int) -> dict[str, Any]:
    values = {"loss": loss(run, step), "learning_rate": 2e-4 * (1 - step / 1200)}
    return {"task": TASKS[run]["id"], "step": step, "values": values}


def past(fake: Fake) -> dict[str, Any]:
    """Half an hour of figures, one in five seconds."""
    now = time.time()
    times = [now - 5 * ago for ago in range(360, 0, -1)]
    rows = [figures_of(fake.overview(at)) for at in times]
    return {"times": times, "series": {name: [row[name] for row in rows] for name in rows[0]}}


def event(name: str, data: Any, number: int | None = None) -> bytes:
    mark = f"id: {number}\n" if number is not None else ""
    return f"event: {name}\n{mark}data: {json.dumps(data)}\n\n".encode()


async def live(request: Request) -> Response:
    fake: Fake = request.app.state.fake

    async def items() -> AsyncIterator[bytes]:
        yield b"retry: 200\n\n"
        after = int(request.query_params.get("after", 0))
        began = fake.since + 8040
        for number, (ago, unit, level, about, text) in enumerate(JOURNAL, 1):
            if number > after:
                record = {"seq": number, "at": began - ago, "unit": unit, "level": level, "about": about, "text": text,
                          "fields": {}, "reasons": []}  # fmt: skip
                yield event("journal", record, number)
        yield event("past", past(fake))
        yield event("points", [point(run, step) for run in (0, 1) for step in range(0, 600 + 200 * run, 5)])
        step, state = 600, "running"
        while True:
            if state != fake.state:
                state = fake.state
                yield event("gone", {"text": "it ended by signal 9"}) if state == "gone" else event("back", {})
            yield event("overview", fake.overview())
            if state == "running":
                step += 5
                if fake.tasks["t-18"] == "running":
                    yield event("point", point(0, step))
            fake.changed.clear()
            try:
                await asyncio.wait_for(fake.changed.wait(), 1)
            except TimeoutError:
                continue

    return StreamingResponse(items(), media_type="text/event-stream")


async def whoami(request: Request) -> Response:
    return JSONResponse({"key": "k7fq2mzx", "user": "ada", "scopes": SCOPES, "anonymous": False})


async def search(request: Request) -> Response:
    words = request.query_params.get("query", "").lower().split()
    filters = json.loads(request.query_params.get("filters", "{}"))
    hits = [hit for hit in STORED if all(word in json.dumps(hit).lower() for word in words)]
    if task := filters.get("task"):
        hits = [hit for hit in hits if task in hit["fields"]["tasks"]]
    if most := filters.get("max_bytes"):
        hits = [hit for hit in hits if hit["fields"]["bytes"] <= most]
    if filters.get("sort") == "size":
        hits = sorted(hits, key=lambda hit: hit["fields"]["bytes"])
    return JSONResponse({"value": hits})


async def stat(request: Request) -> Response:
    path = "/" + request.path_params["path"]
    for hit in STORED:
        if hit["path"] == path:
            extra = {"current": "v2", "versions": ["v1", "v2"], "aliases": {"production": "v1"}}
            entry = {"path": path, "kind": "model", "bytes": hit["fields"]["bytes"], "version": "v2", "mtime": 1.79e9}
            return JSONResponse({"value": {**entry, "fields": {**hit["fields"], **extra}}})
    return refuse(404, "not_found_error", "not_found", f"there is no {path}")


async def plan(request: Request) -> Response:
    device = request.query_params["device"]
    size = next(hit["fields"]["bytes"] for hit in STORED if hit["path"] == request.query_params["path"])
    free = next(found["free"] for found in DEVICES if found["name"] == device)
    rows = [{"device": device, "what": "weights", "owner": "new", "predicted": size},
            {"device": device, "what": "kv", "owner": "new", "predicted": size // 4}]  # fmt: skip
    needed = size + size // 4
    return JSONResponse(
        {"value": {"rows": rows, "fits": needed <= free, "would_evict": [], "needed": needed, "free": free}}
    )


async def journal(request: Request) -> Response:
    now = request.app.state.fake.since + 8040
    records = [
        {"seq": number, "at": now - ago, "unit": unit, "level": level, "about": about, "text": text,
         "fields": {"pid": 4711} if number == 3 else {}, "reasons": []}
        for number, (ago, unit, level, about, text) in enumerate(JOURNAL, 1)
    ]  # fmt: skip
    return JSONResponse({"value": records})


async def why(request: Request) -> Response:
    now = time.time()
    return JSONResponse({"value": [{**reason, "at": now - reason["at"]} for reason in WHY]})


async def models(request: Request) -> Response:
    loaded = {model["path"]: model for model in MODELS}
    data = []
    for hit in STORED:
        model = loaded.get(hit["path"])
        facts = {"state": model["state"] if model else "stored", "tasks": hit["fields"]["tasks"], "path": hit["path"],
                 "context": hit["fields"]["context"], "adapter_of": hit["fields"].get("adapter_of", "")}  # fmt: skip
        name = hit["path"].removeprefix("/models/")
        data.append({"id": name, "object": "model", "created": 1, "owned_by": "llmos", "llmos": facts})
    return JSONResponse({"object": "list", "data": data})


async def chat(request: Request) -> Response:
    fake: Fake = request.app.state.fake
    body = await request.json()
    asked = body["messages"][-1]["content"]
    slow = 0.5 if "slow" in asked else 0.012

    def piece(delta: dict[str, Any], reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        return f"data: {json.dumps({'id': 'c1', 'model': body['model'], 'choices': [choice]})}\n\n".encode()

    async def items() -> AsyncIterator[bytes]:
        ended = False
        words = LOREM.split(" ")
        try:
            yield piece({"role": "assistant", "content": ""})
            for word in words:
                await asyncio.sleep(slow)
                yield piece({"content": word + " "})
            yield piece({}, "stop")
            usage = {
                "prompt_tokens": 14,
                "completion_tokens": len(words),
                "prompt_tokens_details": {"cached_tokens": 9},
            }
            yield f"data: {json.dumps({'choices': [], 'usage': usage})}\n\ndata: [DONE]\n\n".encode()
            ended = True
        finally:
            fake.cancelled += not ended

    return StreamingResponse(items(), media_type="text/event-stream")


async def call(request: Request) -> Response:
    fake: Fake = request.app.state.fake
    name, body = request.path_params["name"], await request.json()
    fake.calls.append((name, body))
    if name == "transform_model":
        task = {"id": "t-9", "handle": 9, "kind": body["recipe"]["kind"], "state": "running"}
        return JSONResponse({"value": task, "request": "r-1", "reasons": []}, 202)
    if name in ("control_object", "cancel_task"):
        return _steered(fake, name, body)
    if name == "load_model":
        return StreamingResponse(_loading(body), media_type="text/event-stream")
    return JSONResponse({"value": {"bytes": GIB}, "request": "r-1", "reasons": []})


def _steered(fake: Fake, name: str, body: dict[str, Any]) -> Response:
    """A task is paused while it runs, resumed while it is paused, cancelled until it has ended: as by the kernel."""
    kind, _, id = body.get("handle", f"task:{body.get('task')}").partition(":")
    if kind != "task":
        return JSONResponse({"value": None, "request": "r-1", "reasons": []})
    if id not in fake.tasks:
        return refuse(404, "not_found_error", "not_found", f"there is no task {id}")
    action = "cancel" if name == "cancel_task" else body["action"]
    begins, after = {
        "pause": (("running",), "paused"), "resume": (("paused",), "running"),
        "cancel": (("running", "paused"), "cancelled"),
    }[action]  # fmt: skip
    state = fake.tasks[id]
    if state not in begins:
        return refuse(409, "conflict_error", "bad_state", f"{id} is {state}")
    fake.tasks[id] = after
    fake.changed.set()
    return JSONResponse({"value": None, "request": "r-1", "reasons": []})


async def runs(request: Request) -> Response:
    fake: Fake = request.app.state.fake
    short = [{name: value for name, value in each.items() if name not in ("curve", "recipe", "facts")}
             for each in _runs(fake).values()]  # fmt: skip
    return JSONResponse({"value": short})


async def run(request: Request) -> Response:
    found = _runs(request.app.state.fake).get(request.path_params["id"])
    if found is None:
        return refuse(404, "not_found_error", "not_found", "this key has no such run")
    return JSONResponse({"value": found})


def _runs(fake: Fake) -> dict[str, dict[str, Any]]:
    return {id: {**each, "state": fake.tasks.get(id, each["state"])} for id, each in RUNS.items()}


async def _loading(body: dict[str, Any]) -> AsyncIterator[bytes]:
    for part in range(5):
        yield event("progress", {"done": part * GIB, "total": 4 * GIB, "unit": "bytes", "stage": "weights"})
        await asyncio.sleep(0.02)
    yield event("end", {"value": {"id": "m-9", "name": body["options"]["name"], "device": body.get("device", "cuda0")}})


async def microtune(request: Request) -> Response:
    order = await request.json()
    if order["data"] == "/home/me/none.jsonl":
        return refuse(404, "not_found_error", "not_found", "/home/me/none.jsonl does not exist", {})
    fake: Fake = request.app.state.fake
    fake.tasks[TASKS[0]["id"]] = "running"
    return JSONResponse({"value": {"id": TASKS[0]["id"], "kind": "tune", "state": "running"}}, 202)


async def control(request: Request) -> Response:
    fake: Fake = request.app.state.fake
    fake.state = (await request.json())["state"]
    fake.changed.set()
    return JSONResponse({"calls": fake.calls, "cancelled": fake.cancelled})


def refuse(status: int, kind: str, code: str, message: str, fields: dict[str, Any] | None = None) -> Response:
    error = {"message": message, "type": kind, "param": None, "code": code, "fields": fields or {}, "reasons": []}
    return JSONResponse({"error": error}, status)


class Gate:
    """Every path but those of the dashboard itself needs the cookie."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        free = scope["type"] != "http" or scope["path"].startswith(("/dashboard", "/fake")) or scope["path"] == "/"
        if free or Request(scope).cookies.get(pages.COOKIE) == KEY:
            await self.app(scope, receive, send)
        else:
            answer = refuse(401, "authentication_error", "invalid_api_key", "this needs a key")
            await answer(scope, receive, send)


async def sign_in(request: Request, key: str) -> bool:
    return key == KEY


def build() -> Any:
    app = Starlette(
        routes=[
            *pages.routes(sign_in),
            Route("/api/v1/live", live),
            Route("/api/v1/whoami", whoami),
            Route("/api/v1/search", search),
            Route("/api/v1/stat/{path:path}", stat),
            Route("/api/v1/plan", plan),
            Route("/api/v1/journal", journal),
            Route("/api/v1/why/{about:path}", why),
            Route("/api/v1/runs", runs),
            Route("/api/v1/runs/{id}", run),
            Route("/api/v1/{name}", call, methods=["POST"]),
            Route("/v1/models", models),
            Route("/v1/chat/completions", chat, methods=["POST"]),
            Route("/microtune", microtune, methods=["POST"]),
            Route("/fake/kernel", control, methods=["POST"]),
        ]
    )
    app.state.fake = Fake()
    return Gate(app)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--ready-fd", type=int, default=1)
    chosen = parser.parse_args()
    listening = socket.create_server(("127.0.0.1", chosen.port))
    os.write(chosen.ready_fd, f"http://127.0.0.1:{listening.getsockname()[1]}\n".encode())
    config = uvicorn.Config(build(), log_level="warning", lifespan="off", timeout_graceful_shutdown=1)
    uvicorn.Server(config).run(sockets=[listening])


if __name__ == "__main__":
    main()
