"""Leases and buffers."""

from __future__ import annotations

from typing import Any

import pytest
from llmos.syscalls import calls
from llmos.syscalls.errors import BadArgument
from llmos.syscalls.spec import SYSCALLS, check

assert calls.__all__


def made(name: str, **arguments: Any) -> Any:
    return check(SYSCALLS[name], arguments)


def refused(name: str, argument: str, **arguments: Any) -> None:
    with pytest.raises(BadArgument) as raised:
        made(name, **arguments)
    assert raised.value.name == argument


@pytest.mark.parametrize("size", [0, -1, 1.5, "1", None])
@pytest.mark.parametrize(("name", "handle"), [("alloc_gpu", "device"), ("alloc_buffer", "system")])
def test_a_size_is_a_positive_integer(name: str, handle: str, size: Any) -> None:
    refused(name, "bytes", **{handle: 1, "bytes": size})


def test_a_lease_lasts_until_closed_unless_told_otherwise() -> None:
    call = made("alloc_gpu", device=1, bytes=1)
    assert (call.ttl_s, call.share) == (None, False)
    assert made("alloc_gpu", device=1, bytes=1, ttl_s=0.5).ttl_s == 0.5
    for ttl in (0, -1, float("nan")):
        refused("alloc_gpu", "ttl_s", device=1, bytes=1, ttl_s=ttl)


def test_both_need_create() -> None:
    assert [SYSCALLS[name].handles[0].rights for name in ("alloc_gpu", "alloc_buffer")] == [("create",), ("create",)]
