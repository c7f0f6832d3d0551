"""Models of another LLM OS: fetched from a real gateway before a real kernel."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from gateway_server import GatewayServer, kernel_for_gateway, serving
from llmos.drivers.filesystems.models.bring.remote import KEY, parse
from llmos.drivers.filesystems.models.filesystem import ModelsFileSystem
from llmos.syscalls.errors import BadArgument, BadModel, Denied, NotFound, Unavailable
from system.model_folder import safetensors, write_versions

OpenModels = Callable[..., ModelsFileSystem]


@pytest.fixture(scope="module")
def module_gateway() -> Iterator[GatewayServer]:
    with kernel_for_gateway() as kernel:
        write_versions(kernel.models / "fox", "1", "2", licence="mit", origin="there", mood="calm")
        with serving(kernel) as server:
            yield server


@pytest.fixture
def gateway(module_gateway: GatewayServer) -> Iterator[GatewayServer]:
    yield module_gateway
    module_gateway.forget()


@pytest.fixture
def system(gateway: GatewayServer, models: OpenModels, monkeypatch: pytest.MonkeyPatch) -> ModelsFileSystem:
    monkeypatch.setenv(KEY, gateway.key("read"))
    return models()


def pull(system: ModelsFileSystem, source: str, path: str = "/mine", **options: Any) -> Mapping[str, Any]:
    return system.bring(path, [source], {"options": options}, lambda *_said: None)


def test_a_version_comes_with_what_its_manifest_says(
    gateway: GatewayServer, system: ModelsFileSystem, tmp_path: Path
) -> None:
    answer = pull(system, f"llmos+{gateway.url}/models/fox@1")
    assert (answer["version"], answer["files"]) == ("1", 2) and answer["fetched"] == answer["bytes"] == 173
    assert (tmp_path / "models/mine/versions/1/model.safetensors").read_bytes() == safetensors()
    token, source = system.locate("/mine")
    system.release(token)
    manifest = source.manifest
    assert (manifest["licence"], manifest["mood"]) == ("mit", "calm")
    assert manifest["origin"] == f"{gateway.url}/models/fox@1" and all(file["sha256"] for file in manifest["files"])
    again = pull(system, f"{gateway.url}/models/fox@1")
    assert (again["unchanged"], again["fetched"]) == (True, 0)


def test_what_is_not_there_or_not_allowed_is_said(
    gateway: GatewayServer, system: ModelsFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(NotFound):
        pull(system, f"{gateway.url}/models/wolf")
    with pytest.raises(Unavailable, match="cannot be reached"):
        pull(system, "http://127.0.0.1:1/models/fox")
    monkeypatch.delenv(KEY)
    with pytest.raises(Denied, match="401"):
        pull(system, f"{gateway.url}/models/fox")
    monkeypatch.setenv(KEY, gateway.key("infer"))
    with pytest.raises(Denied, match="403"):
        pull(system, f"{gateway.url}/models/fox")


def test_a_damaged_file_does_not_become_a_model(
    gateway: GatewayServer, system: ModelsFileSystem, tmp_path: Path
) -> None:
    pull(system, f"{gateway.url}/models/fox@1", "/whole")
    broken = gateway.kernel.models / "broken"
    broken.mkdir()
    for file in (tmp_path / "models/whole/versions/1").iterdir():
        (broken / file.name).write_bytes(file.read_bytes())
    (broken / "config.json").write_bytes(b"x" * (broken / "config.json").stat().st_size)
    with pytest.raises(BadModel, match="not the content"):
        pull(system, f"{gateway.url}/models/broken", "/broken")
    assert not (tmp_path / "models/broken").exists()


@pytest.mark.parametrize(
    ("source", "wanted"),
    [
        ("llmos+http://h:1/models/a/b@2", ("http://h:1", "/models/a/b@2")),
        ("https://h/models/x/", ("https://h", "/models/x")),
    ],
)
def test_addresses(source: str, wanted: tuple[str, str]) -> None:
    assert parse(source) == wanted


@pytest.mark.parametrize(
    "source",
    [
        "http://",
        "http://h/",
        "http://h/other/x",
        "http://u:p@h/models/x",
        "http://h/models/../x",
        "http://h/models/x?a=b",
    ],
)
def test_what_is_no_address(source: str) -> None:
    with pytest.raises(BadArgument):
        parse(source)
