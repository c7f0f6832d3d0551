"""What holds for every device: facts, models, memory, conversations."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from llmos.drivers import convert
from llmos.drivers.contract import LoadSettings, Row, SamplingParams
from llmos.syscalls.driver import Inspected
from llmos.syscalls.errors import BadArgument, BadModel, BadState, Exists, LlmosError, NotFound, NotSupported
from llmos.syscalls.shm import Mapping

from .device_bench import MODEL, DeviceBench
from .inference_checks import INFERENCE_CHECKS
from .time_checks import TIME_CHECKS
from .verdicts import expect, expect_error, expect_sendable, optional

KINDS = ("weights", "kv", "workspace", "tuning", "lease", "foreign", "reserve", "runtime")
TOLERANCE = 0.1
SLACK_BYTES = 1 << 20


def facts(bench: DeviceBench) -> None:
    """facts: its announced name, a kind, and bytes"""
    found = bench.facts
    expect(found.name == bench.name, f"facts().name is {found.name!r}; it is announced as {bench.name!r}")
    expect(bool(found.kind), "facts().kind is empty")
    expect(found.memory_bytes > 0, f"facts().memory_bytes is {found.memory_bytes}")
    expect(found.foreign_bytes >= 0, f"facts().foreign_bytes is {found.foreign_bytes}")
    expect_sendable("facts()", convert.from_facts(found))


def settings(bench: DeviceBench) -> None:
    """config_keys: one line of help for each setting"""
    for key, text in bench.device.config_keys.items():
        expect(isinstance(key, str) and isinstance(text, str) and bool(text.strip()), f"{key!r} has no help: {text!r}")


def prediction(bench: DeviceBench) -> None:
    """step_seconds: a number of seconds"""
    seconds = bench.device.step_seconds()
    expect(0 <= seconds < math.inf, f"step_seconds() is {seconds}")


def idle(bench: DeviceBench) -> None:
    """step: nothing to do, nothing to say"""
    events = list(bench.device.step())
    expect(not events, f"step() without requests returned {events}")


def plan(bench: DeviceBench) -> None:
    """plan: says bytes and allocates none"""
    before = list(bench.rows())
    rows = bench.device.plan(bench.source, LoadSettings())
    _check_rows(rows)
    expect(sum(row.predicted for row in rows) > 0, "plan() predicts no bytes")
    expect(list(bench.rows()) == before, "plan() changed memory()")


def load(bench: DeviceBench) -> None:
    """load: reports progress and describes the model"""
    seen: list[tuple[int, int]] = []
    key = "check-load"

    def progress(done: int, total: int, unit: str = "bytes", stage: str = "") -> None:
        seen.append((done, total))

    loaded = bench.device.load(key, bench.source, LoadSettings(), progress)
    expect(bool(loaded.architecture), "LoadedModel.architecture is empty")
    expect(bool(loaded.tasks), "LoadedModel.tasks is empty")
    expect(loaded.slots >= 1, f"LoadedModel.slots is {loaded.slots}")
    expect(loaded.context >= 1 or "text-generation" not in loaded.tasks, f"LoadedModel.context is {loaded.context}")
    expect_sendable("LoadedModel", convert.from_loaded(bench.name, loaded, {}))
    expect(bool(seen), "load() never reported progress, which is the sign of life of a long load")
    expect(all(0 <= done <= total or total == 0 for done, total in seen), f"progress is out of bounds: {seen[:5]}")
    bench.device.unload(key)


def plan_matches_load(bench: DeviceBench) -> None:
    """plan: the bytes of the weights that load then takes"""
    planned = sum(row.predicted for row in bench.device.plan(bench.source, LoadSettings()) if row.what == "weights")
    bench.load()
    taken = sum(row.allocator for row in bench.rows() if row.what == "weights" and row.owner == MODEL)
    expect(
        abs(taken - planned) <= TOLERANCE * planned + SLACK_BYTES,
        f"plan() predicted {planned} bytes of weights, {taken} were taken",
    )


def memory_rows(bench: DeviceBench) -> None:
    """memory: rows of a known kind that name the model, the same that load returned"""
    loaded = bench.load()
    rows = bench.rows()
    _check_rows(rows)
    expect(bench.held(MODEL) > 0, f"memory() has no row owned by {MODEL!r}: {list(rows)}")
    held, size = bench.held(), bench.facts.memory_bytes
    expect(held <= size, f"memory() says {held} of {size} bytes")
    mine = [row for row in loaded.rows if row.owner == MODEL]
    expect(bool(mine), f"LoadedModel.rows has no row owned by {MODEL!r}")


def bad_settings(bench: DeviceBench) -> None:
    """load: an unknown dtype is refused, not ignored"""
    before = bench.held()
    wrong = LoadSettings(dtype="float7")
    expect_error("dtype float7", lambda: bench.load("check-wrong", wrong), BadArgument, NotSupported, BadModel)
    expect(bench.held() == before, "a refused load kept memory")


def bad_model(bench: DeviceBench) -> None:
    """load: a folder without files gets a typed error, or is enough"""
    key = "check-empty"
    try:
        bench.device.load(key, replace(bench.source, files=[]), LoadSettings(), lambda *_given, **_named: None)
    except LlmosError as error:
        expect(isinstance(error, BadModel | NotSupported | BadArgument), f"expected BadModel, got {error!r}")
        return
    bench.device.unload(key)


def unknown_model(bench: DeviceBench) -> None:
    """unknown models and contexts: NotFound"""
    expect_error("submit", lambda: bench.device.submit(bench.request(model="nobody")), NotFound)
    expect_error("unload", lambda: bench.device.unload("nobody"), NotFound)
    expect_error("drop_context", lambda: bench.device.drop_context("nobody"), NotFound)


def conversations(bench: DeviceBench) -> None:
    """open_context: a conversation keeps what was said, a fork its own copy"""
    bench.load()
    before = bench.held()
    with optional("open_context"):
        opened = bench.device.open_context("check-a", MODEL, "", 128)
    expect(opened.max_tokens > 0, f"OpenedContext.max_tokens is {opened.max_tokens}")
    expect(opened.tokens == 0, f"a new context has {opened.tokens} tokens")
    first = bench.one(bench.request("One", context="check-a")).result()
    second = bench.one(bench.request("Two", context="check-a")).result()
    expect(second.cached_tokens > 0, "the second request of a conversation has no cached tokens")
    expect(second.prompt_tokens > first.prompt_tokens, "prompt_tokens leaves out what was said before")
    fork = bench.device.open_context("check-b", MODEL, "check-a", 128)
    expect(fork.tokens >= second.cached_tokens, f"a fork begins with {fork.tokens} tokens")
    unknown = bench.request("Three", context="nobody")
    expect_error("an unknown context", lambda: bench.device.submit(unknown), NotFound, BadState)
    for context in ("check-b", "check-a"):
        bench.device.drop_context(context)
    expect_error("dropping twice", lambda: bench.device.drop_context("check-a"), NotFound)
    expect(bench.held() <= before, f"dropped contexts leave {bench.held() - before} bytes")


def sleeping(bench: DeviceBench) -> None:
    """sleep and wake: frees the weights, and answers as before"""
    bench.load()
    request = bench.request()
    awake = bench.one(request).choice.tokens
    before = bench.held(MODEL)
    with optional("sleep"):
        bench.device.sleep(MODEL)
    expect(bench.held(MODEL) < before, f"asleep it still holds {bench.held(MODEL)} of {before} bytes")
    expect_error("submit to a sleeping model", lambda: bench.device.submit(bench.request()), BadState)
    bench.device.wake(MODEL, lambda *_given, **_named: None)
    again = bench.one(replace(request, id=bench.new_id())).choice.tokens
    expect(list(again) == list(awake), "after wake a greedy answer is another one")


def leases(bench: DeviceBench) -> None:
    """lease: bytes that another program maps, with a row of their own until they end"""
    size = 1 << 20
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "lease")
        with optional("lease"):
            given = bench.device.lease("check-lease", size, str(path))
        expect(given.kind in ("shm", "cuda-ipc"), f"Leased.kind is {given.kind!r}; expected shm or cuda-ipc")
        if given.kind == "shm":
            expect(given.path == str(path), f"the file was to be {path}; it is {given.path!r}")
            expect(path.stat().st_mode & 0o777 == 0o600, f"others may open the file: {path.stat().st_mode:o}")
            with Mapping(path, writable=True, size=size) as mapped:
                expect(bytes(mapped.view[-4:]) == bytes(4), "a lease does not begin as zeros")
                mapped.view[-4:] = b"mine"
        else:
            expect(bool(given.handle), "a lease of kind cuda-ipc has no handle")
        taken = sum(row.allocator for row in bench.rows() if (row.what, row.owner) == ("lease", "check-lease"))
        expect(taken >= size, f"memory() counts {taken} bytes of a lease of {size}")
        expect_error("a lease twice", lambda: bench.device.lease("check-lease", size, f"{path}2"), Exists)
        freed = bench.device.end_lease("check-lease")
        expect(freed >= size, f"end_lease() says that it freed {freed} of {size} bytes")
        expect(not path.exists(), "the file is there after end_lease()")
        expect_error("ending twice", lambda: bench.device.end_lease("check-lease"), NotFound)


def telling(bench: DeviceBench) -> None:
    """inspect: tells what serves each op, and refuses what it knows nothing of"""
    with optional("inspect"):
        told = bench.device.inspect("ops")
    expect_sendable("inspect()", Inspected(fields=dict(told)))
    expect_error("an unknown topic", lambda: bench.device.inspect("weather"), NotSupported)


def unloading(bench: DeviceBench) -> None:
    """unload: gives the bytes back, time after time"""
    if bench.is_loaded():
        bench.unload()
    before = bench.held()
    for _round in range(3):
        bench.load()
        taken = bench.held() - before
        freed = bench.unload()
        left = bench.held() - before
        expect(left <= 0, f"unload() leaves {left} of {taken} bytes")
        expect(freed > 0, f"unload() says that it freed {freed} bytes")
    expect_error("submit after unload", lambda: bench.device.submit(bench.request()), NotFound)
    expect_error("unload twice", lambda: bench.device.unload(MODEL), NotFound)


def unload_ends_requests(bench: DeviceBench) -> None:
    """unload: ends the model's requests, each with one event or none"""
    bench.load()
    request = bench.request(sampling=SamplingParams(max_tokens=64, ignore_eos=True))
    bench.device.submit(request)
    bench.device.step()
    bench.unload()
    ends = [event for _turn in range(3) for event in bench.events() if event.request == request.id]
    expect(len(ends) <= 1, f"after unload its request was answered {len(ends)} times")


def stopping(bench: DeviceBench) -> None:
    """stop: gives everything back"""
    bench.load()
    bench.stopped = True
    bench.device.stop()
    try:
        left = bench.held()
    except BadState:
        return
    expect(left == 0, f"after stop() memory() still says {left} bytes")


def _check_rows(rows: Sequence[Row]) -> None:
    for row in rows:
        expect(row.what in KINDS, f"a row's kind is {row.what!r}; known are {', '.join(KINDS)}")
        expect(bool(row.owner), f"a row has no owner: {row}")
        expect(min(row.predicted, row.allocator, row.driver) >= 0, f"a row has negative bytes: {row}")
    expect_sendable("a row", convert.from_rows("device", rows, {}))


DEVICE_CHECKS: tuple[Callable[[DeviceBench], None], ...] = (
    facts, settings, prediction, idle, plan, load, plan_matches_load, memory_rows, bad_settings, bad_model,
    unknown_model, *INFERENCE_CHECKS, *TIME_CHECKS, conversations, sleeping, leases, telling, unload_ends_requests,
    unloading, stopping,
)  # fmt: skip
