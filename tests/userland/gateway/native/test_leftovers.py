"""Uploads that nobody goes on with leave; those that somebody does stay."""

from __future__ import annotations

import time

from gateway_server import GatewayServer

from llmos.userland.gateway.native.leftovers import remove_leftovers


def test_unfinished_uploads_leave_after_a_time(gateway: GatewayServer) -> None:
    http = gateway.client()
    whole = {"name": "a.txt", "bytes": 1, "sha256": "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"}
    inner = {**whole, "name": "inner/b.txt"}
    store = "/api/v1/store"
    begun = http.post(f"{store}/models/acme/half", json={"manifest": {"files": [whole, inner]}}).json()["upload"]
    assert http.put(f"{store}/uploads/{begun}/inner/b.txt", content=b"a").status_code == 201
    mine = f"/home/me/incoming/{begun}"
    assert http.get(f"/api/v1/files{mine}/inner/b.txt").content == b"a"

    async def clean(before: float) -> list[str]:
        return await remove_leftovers(await gateway.gateway.sessions.own(), before)

    assert gateway.run(clean(time.time() - 3600)) == []
    assert http.get(f"/api/v1/files{mine}/inner/b.txt").content == b"a"
    (removed,) = gateway.run(clean(time.time() + 3600))
    assert removed.startswith("/home/keys/") and removed.endswith(f"/incoming/{begun}")
    assert http.get(f"/api/v1/files{mine}/inner/b.txt").status_code == 404
    listed = http.post("/api/v1/list_dir", json={"path": "/home/me/incoming"}).json()
    assert begun not in str(listed)
    assert http.put(f"{store}/uploads/{begun}/a.txt", content=b"a").status_code == 404
    assert gateway.run(clean(time.time() + 3600)) == []
