"""The kernel's calls about leases, through a real host."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llmos.syscalls.shm import Mapping
from llmos.syscalls.wire import MessageKind

SIZE = 1 << 20


def test_a_shared_lease_is_a_file_until_it_ends(null: Any, tmp_path: Path) -> None:
    path = tmp_path / "lease"
    given = null.call("lease", {"id": "l", "bytes": SIZE, "share": True, "path": str(path)})
    assert (given["kind"], given["path"]) == ("shm", str(path))
    rows = null.until(MessageKind.EVENT, name="memory").body["rows"]
    assert [(row["what"], row["owner"], row["allocator"]) for row in rows if row["what"] == "lease"] == [
        ("lease", "l", SIZE)
    ]
    with Mapping(path, writable=True) as mapped:
        mapped.view[:2] = b"ab"
    assert null.call("end_lease", {"id": "l"}) == {"bytes": SIZE}
    assert not path.exists() and null.call("end_lease", {"id": "l"})["name"] == "NotFound"


def test_a_lease_that_is_not_shared_is_a_reservation(null: Any) -> None:
    assert null.call("lease", {"id": "l", "bytes": SIZE})["kind"] == "reservation"


def test_leases_end_with_the_host(null: Any, tmp_path: Path) -> None:
    null.call("lease", {"id": "l", "bytes": SIZE, "share": True, "path": str(tmp_path / "lease")})
    null.call("stop")
    assert null.process.wait(10) == 0 and not (tmp_path / "lease").exists()
