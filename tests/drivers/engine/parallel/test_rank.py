"""A rank's process: bound to its host before anything large is imported, and gone when the host is."""

from __future__ import annotations

import os
import subprocess
import sys
from multiprocessing import connection

import pytest
from llmos.drivers.parent import EXIT_ORPHAN

COMMAND = (sys.executable, "-m", "llmos.drivers.engine.parallel.rank")


def test_it_imports_nothing_large_before_it_is_bound() -> None:
    code = "import sys, llmos.drivers.engine.parallel.rank; print('torch' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False"


def test_it_does_not_begin_for_a_host_that_is_gone() -> None:
    environ = os.environ | {"LLMOS_PARENT_PID": "1"}
    assert subprocess.run([*COMMAND, "0"], env=environ, check=False).returncode == EXIT_ORPHAN


@pytest.mark.slow
def test_it_ends_when_the_pipe_closes() -> None:
    ours, theirs = connection.Pipe()
    environ = os.environ | {"LLMOS_PARENT_PID": str(os.getpid())}
    with theirs, subprocess.Popen([*COMMAND, str(theirs.fileno())], pass_fds=[theirs.fileno()], env=environ) as rank:
        theirs.close()
        ours.close()
        assert rank.wait(60) == 1
