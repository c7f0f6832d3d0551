"""The store's routes: what they refuse, what they keep, whose they are. Whole models go through them in
tests/drivers/filesystems/models/bring.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import httpx2
import pytest
from gateway_server import GatewayServer
from system.model_folder import CONFIG, safetensors

from llmos.syscalls.errors import BadArgument
from llmos.userland.gateway.native.store import checked_files, upload_id

STORE = "/api/v1/store"
FILES = {"config.json": json.dumps(CONFIG).encode(), "model.safetensors": safetensors(), "inner/a.txt": b"a"}


def listed(files: dict[str, bytes] = FILES) -> list[dict[str, Any]]:
    return [{"name": n, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for n, data in files.items()]


@pytest.fixture
def http(gateway: GatewayServer) -> httpx2.Client:
    return gateway.client()


def test_a_model_is_told_with_its_manifest_and_files_come_in_ranges(http: httpx2.Client) -> None:
    told = http.get(f"{STORE}/models/org/third").json()
    assert (told["path"], told["version"]) == ("/models/org/third", "local")
    assert {file["name"] for file in told["manifest"]["files"]} == {"config.json", "model.safetensors"}
    path = f"{STORE}/models/org/third@local/model.safetensors"
    assert http.get(path).content == safetensors()
    part = http.get(path, headers={"Range": "bytes=8-11"})
    assert (part.status_code, part.content) == (206, safetensors()[8:12])
    assert http.get(path, headers={"Range": "bytes=900000-"}).status_code == 416
    assert http.get(f"{STORE}/models/nothing").status_code == 404


def test_a_model_arrives_file_by_file_and_becomes_a_version(http: httpx2.Client) -> None:
    manifest = {"licence": "mit", "files": listed()}
    begun = http.post(f"{STORE}/models/acme/new", json={"manifest": manifest}).json()
    assert begun["have"] == []
    uploads = f"{STORE}/uploads/{begun['upload']}"
    early = http.post(uploads, json={"path": "/models/acme/new"})
    assert early.status_code == 422 and "has not arrived" in early.json()["error"]["message"]
    broken = http.put(f"{uploads}/config.json", content=b"x" * len(FILES["config.json"]))
    assert broken.status_code == 422 and "sha256" in broken.json()["error"]["message"]
    assert http.put(f"{uploads}/other.json", content=b"{}").status_code == 404
    assert http.put(f"{uploads}/config.json", content=b"x" * 10_000).status_code == 413
    assert http.put(f"{uploads}/config.json", content=FILES["config.json"]).status_code == 201
    again = http.post(f"{STORE}/models/acme/new", json={"manifest": manifest}).json()
    assert again == {"upload": begun["upload"], "have": ["config.json"]}
    for name in ("model.safetensors", "inner/a.txt"):
        assert http.put(f"{uploads}/{name}", content=FILES[name]).status_code == 201
    elsewhere = http.post(uploads, json={"path": "/models/acme/other"})
    assert elsewhere.status_code == 400 and "was not begun for" in elsewhere.json()["error"]["message"]
    done = http.post(uploads, json={"path": "/models/acme/new"}).json()
    assert done == {"path": "/models/acme/new", "version": "1", "unchanged": False}
    told = http.get(f"{STORE}/models/acme/new").json()["manifest"]
    assert told["licence"] == "mit" and sorted(told["files"], key=str) == sorted(listed(), key=str)
    assert http.post(uploads, json={"path": "/models/acme/new"}).status_code == 404
    same = http.post(f"{STORE}/models/acme/new", json={"manifest": manifest}).json()
    assert same == {"version": "1", "unchanged": True}
    other = {"files": listed({**FILES, "inner/a.txt": b"b"})}
    assert http.post(f"{STORE}/models/acme/new", json={"manifest": other}).status_code == 409
    assert "upload" in http.post(f"{STORE}/models/acme/new", json={"manifest": other, "replace": True}).json()
    assert http.post(f"{STORE}/models/acme", json={"manifest": manifest}).status_code == 409


def test_what_is_no_model_is_refused_when_it_is_to_be_stored(http: httpx2.Client) -> None:
    files = {"a.txt": b"a"}
    begun = http.post(f"{STORE}/models/nomodel", json={"manifest": {"files": listed(files)}}).json()
    http.put(f"{STORE}/uploads/{begun['upload']}/a.txt", content=b"a")
    refused = http.post(f"{STORE}/uploads/{begun['upload']}", json={"path": "/models/nomodel"})
    assert refused.status_code == 422 and "config.json" in refused.json()["error"]["message"]
    assert http.get(f"{STORE}/models/nomodel").status_code == 404


def test_reading_and_bringing_need_their_scopes(gateway: GatewayServer) -> None:
    reader = gateway.client(gateway.key("read"))
    assert reader.get(f"{STORE}/models/null").status_code == 200
    assert reader.post(f"{STORE}/models/x", json={"manifest": {"files": listed()}}).status_code == 403
    assert reader.put(f"{STORE}/uploads/{'0' * 32}/a", content=b"").status_code == 403
    assert gateway.client(gateway.key("infer")).get(f"{STORE}/models/null").status_code == 403
    narrow = gateway.client(gateway.key("read", "manage", models=("org/*",)))
    assert narrow.get(f"{STORE}/models/null").status_code == 404
    assert narrow.post(f"{STORE}/models/x", json={"manifest": {"files": listed()}}).status_code == 404


def test_an_upload_belongs_to_its_key(gateway: GatewayServer, http: httpx2.Client) -> None:
    begun = http.post(f"{STORE}/models/mine", json={"manifest": {"files": listed()}}).json()
    stranger = gateway.client()
    assert stranger.put(f"{STORE}/uploads/{begun['upload']}/config.json", content=b"").status_code == 404
    assert http.put(f"{STORE}/uploads/..%2F..%2Fx/config.json", content=b"").status_code == 404


@pytest.mark.parametrize(
    "entry",
    [
        {"name": "../x", "bytes": 1, "sha256": "0" * 64}, {"name": "/x", "bytes": 1, "sha256": "0" * 64},
        {"name": "manifest.json", "bytes": 1, "sha256": "0" * 64}, {"name": ".x", "bytes": 1, "sha256": "0" * 64},
        {"name": "a//b", "bytes": 1, "sha256": "0" * 64}, {"name": "x", "bytes": -1, "sha256": "0" * 64},
        {"name": "x", "bytes": 1, "sha256": "0"}, {"name": "x", "bytes": 1}, "x",
    ],
)  # fmt: skip
def test_manifests_that_lead_out_or_promise_nothing_are_refused(entry: Any) -> None:
    with pytest.raises(BadArgument, match="is no file"):
        checked_files({"files": [entry]})
    with pytest.raises(BadArgument):
        checked_files({"files": []})


def test_the_same_files_to_the_same_place_are_the_same_upload() -> None:
    files = checked_files({"files": listed()})
    assert upload_id("/models/a", files) == upload_id("/models/a", dict(reversed(files.items())))
    assert upload_id("/models/a", files) != upload_id("/models/b", files)
