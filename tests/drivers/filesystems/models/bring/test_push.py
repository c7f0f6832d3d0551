"""Models sent to another LLM OS: through a real gateway before a real kernel."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx2
import pytest
from gateway_server import GatewayServer, kernel_for_gateway, serving
from llmos.drivers.filesystems.models.bring import connections
from llmos.drivers.filesystems.models.bring import push as pushing
from llmos.drivers.filesystems.models.bring.remote import KEY
from llmos.drivers.filesystems.models.filesystem import ModelsFileSystem
from llmos.syscalls.errors import BadArgument, Denied, Exists, NotFound, Unavailable

OpenModels = Callable[..., ModelsFileSystem]
MakeModel = Callable[..., Path]
STORE = "/api/v1/store"


@pytest.fixture(scope="module")
def module_gateway() -> Iterator[GatewayServer]:
    with kernel_for_gateway() as kernel, serving(kernel) as server:
        yield server


@pytest.fixture
def gateway(module_gateway: GatewayServer) -> Iterator[GatewayServer]:
    yield module_gateway
    module_gateway.forget()


@pytest.fixture
def system(
    gateway: GatewayServer, models: OpenModels, make_model: MakeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> ModelsFileSystem:
    """With a plain model /fox, whose hashes nobody knows yet."""
    monkeypatch.setenv(KEY, gateway.key("read", "manage"))
    make_model(tmp_path / "models/fox", {"inner/notes.txt": b"n"})
    return models()


def send(system: ModelsFileSystem, target: str, path: str = "/fox", **options: Any) -> Mapping[str, Any]:
    return system.send(path, target, {"options": options}, lambda *_said: None)


def test_a_model_goes_over_whole_and_once(
    gateway: GatewayServer, system: ModelsFileSystem, make_model: MakeModel, tmp_path: Path
) -> None:
    answer = send(system, gateway.url)
    assert (answer["version"], answer["files"], answer["url"]) == ("1", 4, f"{gateway.url}/models/fox")
    there = gateway.kernel.models / "fox/versions/1"
    assert (there / "inner/notes.txt").read_bytes() == b"n"
    assert (there / "model.safetensors").read_bytes() == (tmp_path / "models/fox/model.safetensors").read_bytes()
    assert send(system, gateway.url)["unchanged"] is True
    (tmp_path / "models/fox/tokenizer.json").write_bytes(b"[2]")
    with pytest.raises(Exists, match="--force"):
        send(system, gateway.url)
    assert send(system, f"llmos+{gateway.url}/models/fox", replace=True)["version"] == "2"
    assert send(system, f"{gateway.url}/models/acme/wolf")["url"] == f"{gateway.url}/models/acme/wolf"
    assert list((gateway.kernel.home / "files/keys").glob("*/incoming/*")) == []


def test_an_interrupted_push_goes_on_with_what_is_missing(
    gateway: GatewayServer, system: ModelsFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[str] = []
    whole = pushing._send

    def breaks(file: Any, url: str, *rest: Any) -> None:
        if file.name == "tokenizer.json":
            raise Unavailable("the line is cut")
        sent.append(file.name)
        whole(file, url, *rest)

    monkeypatch.setattr(pushing, "_send", breaks)
    monkeypatch.setattr(connections, "CONNECTIONS", 1)
    with pytest.raises(Unavailable):
        send(system, f"{gateway.url}/models/slow")
    assert sent == ["config.json", "inner/notes.txt", "model.safetensors"]
    sent.clear()
    monkeypatch.setattr(pushing, "_send", lambda file, *rest: (sent.append(file.name), whole(file, *rest))[1])
    assert send(system, f"{gateway.url}/models/slow")["version"] == "1"
    assert sent == ["tokenizer.json"]


def test_what_cannot_be_is_said(
    gateway: GatewayServer, system: ModelsFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    for target in ("gopher://h", "http://", "http://h/other", "http://u@h", "http://h/models/../x"):
        with pytest.raises(BadArgument):
            send(system, target)
    with pytest.raises(BadArgument, match="no option"):
        send(system, gateway.url, colour="red")
    with pytest.raises(NotFound):
        send(system, gateway.url, "/wolf")
    with pytest.raises(Unavailable):
        send(system, "http://127.0.0.1:1")
    monkeypatch.setenv(KEY, gateway.key("read"))
    with pytest.raises(Denied, match="403"):
        send(system, f"{gateway.url}/models/denied")
    with httpx2.Client(headers={"Authorization": f"Bearer {gateway.key()}"}) as http:
        assert http.get(f"{gateway.url}{STORE}/models/denied").status_code == 404
