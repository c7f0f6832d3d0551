"""File calls."""

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


@pytest.mark.parametrize("name", ["open_file", "list_dir", "stat_path", "remove_path"])
def test_a_path_is_bounded_text(name: str) -> None:
    assert made(name, path="/models").path == "/models"
    refused(name, "path", path="/" + "x" * 4096)
    refused(name, "path", path=b"/models")


def test_modes() -> None:
    assert [made("open_file", path="/a", mode=mode).mode for mode in "rwax"] == list("rwax")
    refused("open_file", "mode", path="/a", mode="rw")
    refused("mount_fs", "mode", system=1, path="/a", filesystem="models", source="/b", mode="w")


@pytest.mark.parametrize(("argument", "value"), [("offset", -1), ("count", -1), ("count", 2**30 + 1)])
def test_a_read_has_bounds(argument: str, value: int) -> None:
    refused("read_file", argument, **{"file": 1, "offset": 0, "count": 1, argument: value})


def test_data_is_bytes_or_a_buffer_but_never_text() -> None:
    assert made("write_file", file=1, offset=0, data=b"").data == b""
    assert made("write_file", file=1, offset=0, data={"type": "buffer", "buffer": 2, "length": 8}).data.length == 8
    refused("write_file", "data", file=1, offset=0, data="aGVsbG8=")
    refused("write_file", "data.offset", file=1, offset=0, data={"type": "buffer", "buffer": 2, "offset": -1})


def test_a_search_has_a_limit() -> None:
    assert made("search_fs", path="/knowledge", query="tides").limit == 8
    refused("search_fs", "limit", path="/knowledge", query="tides", limit=0)


def test_the_right_each_handle_needs() -> None:
    needed = {name: SYSCALLS[name].handles[0].rights for name in ("read_file", "write_file", "mount_fs")}
    assert needed == {"read_file": ("read",), "write_file": ("write",), "mount_fs": ("manage",)}
