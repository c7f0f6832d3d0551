"""What hosts report by themselves."""

from __future__ import annotations

import msgspec
import pytest
from llmos.syscalls.events import Beat, DeviceFacts, HostEvent, Ready


def test_an_event_is_told_by_its_tag() -> None:
    body = {"event": "beat", "seq": 3, "steps": 9, "busy_with": "r1", "may_take_s": 12.5}
    assert msgspec.convert(body, HostEvent) == Beat(seq=3, steps=9, busy_with="r1", may_take_s=12.5)


def test_a_step_may_take_three_seconds_when_nothing_is_said() -> None:
    assert Beat(seq=0, steps=0).may_take_s == 3.0


def test_a_device_host_reports_its_device_and_a_filesystem_host_none() -> None:
    device = {"name": "null0", "kind": "null", "memory_bytes": 1 << 30, "features": {"threads": 2, "isa": "none"}}
    ready = msgspec.convert({"event": "ready", "devices": [device]}, HostEvent)
    assert isinstance(ready, Ready)
    assert ready.devices == [
        DeviceFacts(name="null0", kind="null", memory_bytes=1 << 30, features={"threads": 2, "isa": "none"})
    ]
    assert msgspec.convert({"event": "ready", "filesystem": "models"}, HostEvent) == Ready(filesystem="models")


@pytest.mark.parametrize("body", [{}, {"event": "shout"}, {"event": "beat"}, {"event": "beat", "seq": "x", "steps": 0}])
def test_what_is_no_event_is_refused(body: dict[str, object]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(body, HostEvent)
