"""A program that a kernel starts: it takes up its session and tells, as JSON, what it was given and can do."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from pathlib import Path

from llmos.syscalls.errors import LlmosError, NotFound
from system.raw_client import RawClient


def tell(client: RawClient) -> dict[str, object]:
    """What this program holds, sees, and is refused."""
    found: dict[str, object] = {
        "grants": {name: sorted(client.call("stat_object", handle=h)["rights"]) for name, h in client.grants.items()},
        "paths": [],
    }
    with contextlib.suppress(NotFound):
        found["paths"] = [entry["path"] for entry in client.call("list_dir", path="/")]
    refused = {}
    attempts = {
        "stat_path": {"path": "/sys/version"},
        "open_file": {"path": "/models/planted", "mode": "w"},
        "spawn_program": {"system": client.system, "argv": ["id"]},
        "alloc_gpu": {"device": 1, "bytes": 1},
    }
    for call, body in attempts.items():
        refused[call] = type(client.error(call, **body)).__name__
    found["refused"] = refused
    return found


if __name__ == "__main__":
    with RawClient(Path(os.environ["LLMOS_RUNTIME_DIR"], "kernel.sock")) as plain:
        try:
            outside = plain.hello("outside").session
        except LlmosError as error:
            outside = type(error).__name__
    with RawClient(Path(os.environ["LLMOS_RUNTIME_DIR"], "kernel.sock")) as the_client:
        the_client.hello("program", resume=os.environ["LLMOS_SESSION"])
        print(json.dumps({**tell(the_client), "without token": outside, "argv": sys.argv[1:]}))
