"""Flows of one object that the null device cannot show; the usual way is in test_objects."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llmos.syscalls.errors import BadHandle, NotFound, PeerGone
from llmos.syscalls.types import Data, File, Handle, Image, ModelInfo, Task
from llmos.userland.client import Client
from llmos.userland.objects import Model
from llmos.userland.objects import Task as TaskObject

END = {"id": "r1", "task": "t", "model_version": "v", "choices": []}
INFO = ModelInfo(
    handle=Handle(3), id="m-1", path="/models/fox", version="v1", device="cpu0", architecture="X", name="fox"
)  # fmt: skip


@pytest.fixture
def client(fake: Any) -> Any:
    fake.on("infer", lambda request: request.reply(END))
    with Client(fake.address, patience=0.2) as client:
        yield client


def sent(fake: Any) -> dict[str, Any]:
    while (request := fake.calls.get()).name != "infer":
        pass
    found: dict[str, Any] = request.body
    return found


def test_the_models_own_settings_are_read_from_its_folder_and_overridden(client: Any, fake: Any) -> None:
    config = json.dumps({"do_sample": True, "temperature": 0.6, "top_k": 20}).encode()
    opened = File(handle=Handle(8), path="x", bytes=len(config), version="v1")
    fake.on("open_file", lambda request: request.reply(opened))
    fake.on("read_file", lambda request: request.reply(Data(data=config, eof=True)))
    Model(client, INFO).infer("x", sampling="model", temperature=0.1)
    sampling = sent(fake)["sampling"]
    assert (sampling["temperature"], sampling["top_k"]) == (0.1, 20)


def test_a_model_without_settings_gets_the_defaults(client: Any, fake: Any) -> None:
    fake.on("open_file", lambda request: request.fail(NotFound("no such file")))
    Model(client, INFO).infer("x", sampling="model")
    assert sent(fake)["sampling"]["temperature"] == 0


def test_arguments_of_the_request_travel_beside_the_sampling(client: Any, fake: Any) -> None:
    Model(client, INFO).infer("x", priority=3, work_class="batch", key="k", timeout=9, max_tokens=2)
    body = sent(fake)
    assert (body["priority"], body["work_class"], body["key"]) == (3, "batch", "k")
    assert body["deadline"] is not None and body["sampling"]["max_tokens"] == 2


def test_a_task_of_higher_priority_is_nicer_to_nobody(client: Any, fake: Any) -> None:
    info = {"id": "t-1", "kind": "task", "name": "t-1", "state": "running"}
    fake.on("control_object", lambda request: request.reply(info))
    TaskObject(client, Task(handle=Handle(4), id="t-1", kind="program", state="running")).set_priority(5)
    assert fake.calls.get().body["options"] == {"nice": -5}


@pytest.mark.parametrize("error", [BadHandle("not open"), PeerGone("gone")])
def test_closing_what_is_gone_already_is_harmless(client: Any, fake: Any, error: Exception) -> None:
    fake.on("close_handle", lambda request: request.fail(error))
    with Model(client, INFO):
        pass


def test_options_of_the_task_travel_beside_the_sampling(client: Any, fake: Any) -> None:
    Model(client, INFO).infer("x", task="zero-shot-classification", options={"candidate_labels": ["a"]}, max_tokens=2)
    body = sent(fake)
    assert (body["task"], body["options"]) == ("zero-shot-classification", {"candidate_labels": ["a"]})
    assert body["sampling"]["max_tokens"] == 2


def test_a_picture_of_the_namespace_is_read_before_the_call(client: Any, fake: Any) -> None:
    opened = File(handle=Handle(8), path="/files/x.png", bytes=3, version="v1")
    fake.on("open_file", lambda request: request.reply(opened))
    fake.on("read_file", lambda request: request.reply(Data(data=b"png", eof=True)))
    fake.on("close_handle", lambda request: request.reply({}))
    Model(client, INFO).infer(["see", Image(path="/files/x.png")])
    parts = sent(fake)["input"]["parts"]
    assert [part["type"] for part in parts] == ["text", "image"] and parts[1]["data"] == b"png"
