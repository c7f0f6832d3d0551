"""top: once, as JSON, and refreshed on a terminal until q."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from typing import Any


def test_once(llmos: Any, system: Any) -> None:
    assert "no model is loaded" in llmos("top --once").out
    system.load_model("/models/null", device="null0", name="fox")
    ran = llmos("top")
    assert "fox" in ran.out and "null0" in ran.out and "sessions" in ran.out and "Ctrl-C" not in ran.out
    assert set(llmos("top --json").json) == {"devices", "models", "tasks"}


def test_on_a_terminal_it_refreshes_until_q(system: Any, kernel: Any) -> None:
    ours, theirs = pty.openpty()
    env = {**os.environ, "LLMOS_RUNTIME_DIR": str(kernel.folder), "TERM": "xterm", "COLUMNS": "120", "LINES": "40"}
    command = [sys.executable, "-m", "llmos.userland.cli", "top", "--interval", "0.05"]
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=env) as top:
        os.close(theirs)
        seen = b""
        while seen.count(b"up ") < 3:
            seen += os.read(ours, 65536)
        assert b"null0" in seen and b"Ctrl-C ends" in seen
        os.write(ours, b"q")
        while True:
            try:
                if not os.read(ours, 65536):
                    break
            except OSError:
                break
        assert top.wait() == 0
    os.close(ours)
