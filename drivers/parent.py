"""Processes that end with the one that started them."""

from __future__ import annotations

import ctypes
import os
import signal

EXIT_ORPHAN = 75


def end_with_parent() -> int:
    """Have the kernel of the machine kill this process when its parent ends, and return the parent's pid.

    The signal is sent when the *thread* that started this process ends (prctl(2), PR_SET_PDEATHSIG), and it is lost
    if the parent ended before this call: hence the comparison.
    """
    set_pdeathsig = 1
    ctypes.CDLL(None).prctl(set_pdeathsig, signal.SIGKILL, 0, 0, 0)
    parent = int(os.environ.get("LLMOS_PARENT_PID", os.getppid()))
    if os.getppid() != parent:
        os._exit(EXIT_ORPHAN)
    return parent
