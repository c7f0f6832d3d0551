"""Models by the names that requests use."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from gateway_server import GatewayServer
from system.model_folder import write_model

from llmos.syscalls.errors import NotSupported
from llmos.userland.async_objects import AsyncModel
from llmos.userland.gateway.core.caller import Caller
from llmos.userland.gateway.core.errors import HttpError
from llmos.userland.gateway.core.models import Models, base_path, path_of, plain

ADA = Caller("ada", "ada", "key-ada", frozenset({"infer"}))


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("tiny", "/models/tiny"), ("org/x", "/models/org/x"), ("tiny@2", "/models/tiny@2"),
        ("tiny:best", "/models/tiny@best"), ("/models/org/x", "/models/org/x"), ("/mnt/mine:x", "/mnt/mine@x"),
    ],
)  # fmt: skip
def test_paths(name: str, path: str) -> None:
    assert path_of(name) == path


def test_names_as_patterns_mean_them() -> None:
    assert [plain(name) for name in ("/models/org/x@2", "tiny:best", "tiny")] == ["org/x", "tiny", "tiny"]


def test_the_base_of_an_adapter() -> None:
    parents = [{"path": "/models/a", "how": "merge"}, {"path": "/models/b", "version": "2", "how": "adapter"}]
    assert base_path({"parents": parents}) == "/models/b@2"
    assert base_path({"parents": [{"path": "/models/b", "how": "adapter"}]}) == "/models/b"
    assert base_path({}) == base_path({"parents": None}) == base_path({"parents": ["x"]}) == ""


def test_the_first_request_loads_and_the_others_wait_for_it(gateway: GatewayServer) -> None:
    models = gateway.gateway.models

    async def check() -> None:
        waited: list[float] = []
        found = await asyncio.gather(*(models.get(ADA, "other", on_load=waited.append) for _ in range(4)))
        assert len({model.info.id for model in found}) == 1 and len(waited) == 4 and min(waited) > 0
        await models.get(ADA, "other", on_load=waited.append)
        assert len(waited) == 4
        by_id = await models.get(ADA, found[0].info.id)
        by_path = await models.get(ADA, "/models/other")
        assert by_id.info.id == by_path.info.id == found[0].info.id
        assert (await models.get(ADA, "org/third")).info.name == "third"
        with pytest.raises(NotSupported):
            await models.get(ADA, "other", wanted_task="rerank")

    gateway.run(check())


@pytest.mark.parametrize(
    "name", ["", "no", "no/such", "org", "../../etc", "a\0b", "other@9", "x" * 5000, "/home", "@", ":"]
)
def test_what_is_no_model(gateway: GatewayServer, name: str) -> None:
    async def check() -> None:
        with pytest.raises(HttpError) as raised:
            await gateway.gateway.models.get(ADA, name)
        assert raised.value.status == 404 and raised.value.code == "model_not_found"

    gateway.run(check())


def test_aliases_and_no_loads_by_themselves(gateway: GatewayServer) -> None:
    settings = gateway.gateway.settings

    async def check() -> None:
        aliases = {"gpt": "null"}
        named = Models(type(settings)(aliases=aliases), gateway.gateway.sessions)
        assert (await named.get(ADA, "gpt")).info.path == "/models/null"
        kept = replace(ADA, models=("gpt",))
        assert (await named.get(kept, "gpt")).info.name == "null"
        strict = Models(type(settings)(load_on_request=False), gateway.gateway.sessions)
        with pytest.raises(HttpError):
            await strict.get(replace(ADA, tenant="key-x"), "tiny")

    gateway.run(check())


def test_a_model_that_left_is_found_again_once(gateway: GatewayServer) -> None:
    models = gateway.gateway.models
    tried: list[str] = []

    async def work(model: AsyncModel) -> str:
        tried.append(model.info.id)
        return (await model.infer("x")).text

    async def check() -> None:
        assert await models.use(ADA, "null", work) == "x"
        own = await gateway.gateway.sessions.own()
        await (await own.model("null")).unload()
        assert await models.use(ADA, "null", work) == "x"
        assert len(tried) == 3 and len(set(tried)) == 2

    gateway.run(check())


def test_how_long_a_model_stays_awake(gateway: GatewayServer) -> None:
    models = gateway.gateway.models

    async def check() -> None:
        model = await models.get(ADA, "null", keep_alive=5)
        await models.keep_alive(model, 60)
        info = await models.state(ADA, "null")
        assert info is not None and info.fields["keep_alive"] == 60
        await models.keep_alive(model, 0)
        info = await models.state(ADA, "null")
        assert info is not None and info.state == "asleep"
        await models.keep_alive(model, 0)
        assert await models.state(replace(ADA, models=("x",)), "null") is None
        assert await models.state(ADA, "nothing") is None

    gateway.run(check())


def test_an_adapter_brings_its_base(gateway: GatewayServer) -> None:
    folder = gateway.kernel.models / "tuned"
    parents = [{"path": "/models/null", "version": "", "how": "adapter"}]
    write_model(folder, parents=parents)

    async def check() -> None:
        model = await gateway.gateway.models.get(ADA, "tuned")
        info = await gateway.gateway.models.state(ADA, "tuned")
        assert info is not None and info.fields["base"] and model.info.name == "tuned"
        listed = {each.id: each for each in await gateway.gateway.models.listed(ADA)}
        assert listed["tuned"].adapter_of and listed["tuned"].state == "awake"

    gateway.run(check())


def test_the_list_names_each_once(gateway: GatewayServer) -> None:
    async def check() -> None:
        await gateway.gateway.models.get(ADA, "org/third")
        listed = await gateway.gateway.models.listed(ADA)
        names = [each.id for each in listed]
        assert len(names) == len(set(names)) and {"null", "other", "org/third", "tiny"} <= set(names)
        assert {each.id: each.state for each in listed}["org/third"] == "awake"

    gateway.run(check())


def test_a_chosen_name_neither_hides_nor_opens_a_model(gateway: GatewayServer) -> None:
    write_model(gateway.kernel.models / "wanted")

    async def check() -> None:
        own = await gateway.gateway.sessions.own()
        await own.load_model("/models/org/third", name="wanted", replace=True)
        assert (await gateway.gateway.models.get(ADA, "wanted")).info.path == "/models/wanted"
        await own.load_model("/models/org/third", name="nickname", device="null0", max_context=64)
        assert (await gateway.gateway.models.get(ADA, "nickname")).info.path == "/models/org/third"
        with pytest.raises(HttpError):
            await gateway.gateway.models.get(replace(ADA, key="x", tenant="key-x", models=("nick*",)), "nickname")

    gateway.run(check())
