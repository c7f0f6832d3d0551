"""Any bytes at the hosts' socket from a process that is no host: dropped, and no driver notices."""

from __future__ import annotations

import msgpack
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from llmos.syscalls.driver import HOST_CALLS
from llmos.syscalls.wire import MessageKind, pack
from strategies import MAPS, PLAIN
from system import zmtp
from system.kernel_process import KernelProcess
from system.raw_client import RawClient

SHARED = settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])

EVENTS = ("ready", "beat", "metric", "capacity", "spent", "memory", "fault")
SPOKEN = st.builds(
    pack, st.sampled_from(MessageKind), st.integers(0, 10), st.sampled_from([*EVENTS, *HOST_CALLS]), MAPS
)
NOISE = st.lists(st.binary(max_size=64) | PLAIN.map(msgpack.packb), min_size=1, max_size=4)


@SHARED
@given(messages=st.lists(SPOKEN | NOISE, min_size=1, max_size=5), identity=st.binary(max_size=6))
def test_nobody_speaks_for_a_host(
    kernel: KernelProcess, witness: RawClient, messages: list[list[bytes]], identity: bytes
) -> None:
    with zmtp.greeted(kernel.runtime / "hosts.sock", identity) as raw:
        for frames in messages:
            raw.sendall(zmtp.message(frames))
    witness.quiet()
    assert witness.driver()["state"] == "ready"
