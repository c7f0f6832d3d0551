"""Processes end with the one that started them, however that ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import psutil
from llmos.drivers.parent import EXIT_ORPHAN

CHILD = """
import signal
from llmos.drivers.parent import end_with_parent
print(end_with_parent(), flush=True)
signal.pause()
"""
PARENT = f"""
import os, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", {CHILD!r}], stdout=subprocess.PIPE, text=True,
    env=os.environ | {{"LLMOS_PARENT_PID": str(os.getpid())}})
print(child.pid, child.stdout.readline().strip(), flush=True)
child.wait()
"""


def test_a_child_is_killed_with_its_parent() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child, told = (int(word) for word in parent.stdout.readline().split())
        assert told == parent.pid
        orphan = psutil.Process(child)
        parent.send_signal(signal.SIGKILL)
    psutil.wait_procs([orphan], timeout=20)
    assert not orphan.is_running() or orphan.status() == psutil.STATUS_ZOMBIE


def test_a_child_whose_parent_ended_already_ends_at_once() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    environ = os.environ | {"LLMOS_PARENT_PID": str(ended.pid)}
    assert subprocess.run([sys.executable, "-c", CHILD], env=environ, check=False).returncode == EXIT_ORPHAN
