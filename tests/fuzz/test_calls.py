"""Every call with any arguments that its types allow: one answer, and only errors that the call declares."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import llmos.syscalls.calls  # noqa: F401 - fills the call table
import msgspec
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from llmos.kernel.actions import ACTIONS
from llmos.syscalls.errors import COMMON, BadHandle, Busy, NotFound
from llmos.syscalls.spec import SYSCALLS, CallSpec
from llmos.syscalls.wire import LIMITS
from strategies import bodies
from system.kernel_process import KernelProcess
from system.raw_client import Answer, RawClient

NAMES = sorted(set(SYSCALLS) - {"hello"})
WAITS = ("wait_task", "watch_events", "infer", "infer_stream", "embed", "load_model", "cancel_task")
PATHS = ("/", "/models", "/models/null", "/models/null/config.json", "/home", "/home/a", "/home/a/b", "/proc/models",
         "/proc/sessions", "/sys/version", "/sys/journal", "/dev/null0", "/nothing")  # fmt: skip
PROGRAMS = st.sampled_from([["true"], ["false"], ["sh", "-c", "exit 3"], ["sleep", "60"], ["/nothing"], ["a\0b"]])


@pytest.fixture
def client(kernel: KernelProcess) -> Iterator[RawClient]:
    with kernel.client("fuzzer") as client:
        yield client


def pool(client: RawClient, folder: Path) -> list[int]:
    """Handles of every kind but driver and session: others would feel what is done to those."""
    (folder / "a").write_bytes(bytes(100_000))
    model = client.load("null")
    device = client.grants["null0"]
    made = [
        client.call("alloc_gpu", device=device, bytes=1000),
        client.call("alloc_buffer", system=client.system, bytes=100_000),
        client.call("open_context", model=model),
        client.call("open_file", path="/home/a"),
        client.call("open_file", path="/home/b", mode="w"),
        client.call("spawn_program", system=client.system, argv=["sleep", "60"]),
        client.call("mount_fs", system=client.system, path="/mnt", filesystem="files", source=str(folder)),
    ]
    narrow = client.call("dup_handle", handle=client.system, rights=["read"])
    return [client.system, model, device, narrow["handle"], *(found["handle"] for found in made), 0, 10**9]


def arguments(spec: CallSpec, handles: list[int], folder: str) -> st.SearchStrategy[dict[str, Any]]:
    """Arguments of a call that have a chance to mean something."""
    likely: dict[str, st.SearchStrategy[Any]] = {
        "path": st.sampled_from(PATHS), "argv": PROGRAMS, "filesystem": st.sampled_from(["files", "models", "null0"]),
        "source": st.sampled_from([folder, "", "x", "bundled"]), "deadline": st.just(None), "key": st.just(""),
    }  # fmt: skip
    known = {field.name for field in spec.fields} | {"deadline", "key"}
    rewritten = {name: values for name, values in likely.items() if name in known}
    for field in spec.handles:
        rewritten[field.name] = st.sampled_from(handles) | (st.none() if not field.required else st.nothing())
    if spec.name == "control_object":
        actions = sorted({action for table in ACTIONS.values() for action in table})
        rewritten["action"] = st.sampled_from(actions)
    return st.builds(lambda body, likely: body | likely, bodies(spec), st.fixed_dictionaries(rewritten))


def declared(spec: CallSpec) -> set[str]:
    return {error.__name__ for error in (*spec.errors, *COMMON)}


def tidy(client: RawClient) -> None:
    """End what outlives the session that made it."""
    while models := client.call("list_objects", system=client.system, kind="model"):
        with contextlib.suppress(BadHandle, NotFound, Busy):  # it leaves already, replaced or with its base
            client.call("unload_model", model=models[0]["handle"], force=True)
    for task in client.call("list_objects", system=client.system, kind="task"):
        client.call("cancel_task", task=task["handle"], grace_s=0)


def check(answer: Answer) -> None:
    """The answer is of the declared form."""
    spec = SYSCALLS[answer.name]
    if answer.error is not None:
        assert answer.body["name"] in declared(spec), f"{answer.name} does not declare {answer.body}"
        return
    msgspec.convert(answer.value, spec.result)
    for chunk in answer.chunks:
        msgspec.convert(chunk, spec.item)


@pytest.mark.parametrize("examples", [25, pytest.param(1000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", NAMES)
def test_any_arguments_get_one_answer_of_the_declared_form(
    kernel: KernelProcess, client: RawClient, witness: RawClient, name: str, tmp_path: Path, examples: int
) -> None:
    spec = SYSCALLS[name]
    handles = pool(client, kernel.home / "files")
    if name == "close_handle":
        handles.remove(client.system)

    @settings(max_examples=examples, suppress_health_check=[HealthCheck.too_slow])
    @given(arguments(spec, handles, str(tmp_path)))
    def fuzz(body: dict[str, Any]) -> None:
        assume(len(msgspec.msgpack.encode(body)) < LIMITS.message_bytes)
        soon = {"deadline": time.monotonic_ns() + 300_000_000} if name in WAITS else {}
        number = client.send(name, **body | soon)
        if name == "watch_events":
            client.cancel(number)
        check(client.wait(number))
        witness.quiet()

    fuzz()
    tidy(witness)


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=bodies(SYSCALLS["hello"]))
def test_any_hello_gets_one_answer(kernel: KernelProcess, witness: RawClient, body: dict[str, Any]) -> None:
    with kernel.connection() as client:
        answer = client.wait(client.send("hello", **body))
        check(answer)
        if answer.error is None:
            client.welcome(answer.value)
            client.call("close_handle", handle=client.handle)
    witness.quiet()
