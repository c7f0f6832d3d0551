"""What is read of the kernel at one time, and for whom."""

from __future__ import annotations

from gateway_server import GatewayServer

from llmos.userland.gateway.core.caller import Caller
from llmos.userland.gateway.native.looking import _queues, look
from llmos.userland.gateway.native.overview import Look


def test_a_key_sees_devices_and_its_own_models(gateway: GatewayServer) -> None:
    http = gateway.client()
    for name in ("null", "other"):
        assert http.post("/api/v1/load_model", json={"path": f"/models/{name}"}).is_success

    async def seen(caller: Caller) -> Look:
        return await look(caller, await gateway.gateway.sessions.own())

    everybody = gateway.run(seen(Caller("", "x", "", frozenset({"admin"}))))
    assert {model.name for model in everybody.models} >= {"null", "other"} and everybody.system is not None
    assert [device.name for device in everybody.devices] == ["null0"] and everybody.rows and everybody.metrics
    one = gateway.run(seen(Caller("k", "ada", "key-k", frozenset({"read"}), ("null",))))
    assert {model.name for model in one.models} == {"null"} and one.devices[0].id == everybody.devices[0].id
    assert everybody.queues == [] and everybody.raised == [] and everybody.advice == []


def test_who_waits_is_told_to_administrators_alone() -> None:
    queue = {"model": "m-1", "work_class": "batch", "owner": "uid:1001", "waiting": 2}
    admin, key = Caller("", "x", "", frozenset({"admin"})), Caller("k", "ada", "key-k", frozenset({"read"}))
    assert _queues(admin, [queue], {"m-1"}) == [queue]
    assert _queues(key, [queue, {**queue, "model": "m-2"}], {"m-1"}) == [{**queue, "owner": ""}]
