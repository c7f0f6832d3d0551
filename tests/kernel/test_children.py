"""Child processes, with real ones."""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from watching import Loop

from llmos.kernel.children import Child, exit_text


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    assert loop.watched == 0
    loop.close()


class Started:
    """A child that runs a Python text, and how it ended."""

    def __init__(self, loop: Loop, text: str, **options: Any) -> None:
        self.loop = loop
        self.ended: list[int] = []
        self.lines: list[str] = []
        self.child = Child(
            [sys.executable, "-c", text], os.environ, loop.runner, loop, self.ended.append, self.lines.append, **options
        )

    def wait(self) -> int:
        self.loop.until(lambda: self.ended)
        return self.ended[0]


def test_the_end_and_the_last_output_are_seen(loop: Loop) -> None:
    text = "import sys; print('one'); print('two', file=sys.stderr); print('half', end=''); sys.exit(3)"
    started = Started(loop, text)
    assert started.wait() == 3
    assert started.child.exit == 3
    assert sorted(started.lines) == ["half", "one", "two"]
    assert set(started.child.tail().split("\n")) == {"half", "one", "two"}
    assert len(started.child.tail(1).split("\n")) == 1


def test_output_is_seen_while_it_runs(loop: Loop) -> None:
    started = Started(loop, "import time; print('here', flush=True); time.sleep(60)")
    loop.until(lambda: started.lines)
    assert started.lines == ["here"]
    started.child.signal(signal.SIGKILL)
    assert started.wait() == -signal.SIGKILL


def test_a_child_inherits_what_it_is_given_and_nothing_else(loop: Loop) -> None:
    given, other = os.pipe()
    os.set_inheritable(other, True)
    text = f"import os; os.fstat({given}); print('given')\ntry: os.fstat({other})\nexcept OSError: print('alone')"
    started = Started(loop, text, pass_fds=[given])
    assert started.wait() == 0 and started.lines == ["given", "alone"]
    assert not os.get_inheritable(given)
    os.close(given)
    os.close(other)


def test_an_endless_line_is_cut(loop: Loop) -> None:
    started = Started(loop, "print('x' * 50_000, end='', flush=True)")
    started.wait()
    assert started.lines
    assert max(map(len, started.lines)) <= 2000


def test_a_child_that_ends_in_time_is_not_killed(loop: Loop) -> None:
    text = "import signal, sys; signal.signal(15, lambda *_: sys.exit(0)); print('up', flush=True); signal.pause()"
    started = Started(loop, text)
    loop.until(lambda: started.lines)
    started.child.terminate(60)
    assert started.wait() == 0
    assert loop.runner.next_timer() is None


def test_a_child_that_ignores_the_request_is_killed(loop: Loop) -> None:
    started = Started(loop, "import signal; signal.signal(15, signal.SIG_IGN); print('up', flush=True); signal.pause()")
    loop.until(lambda: started.lines)
    started.child.terminate(0.0)
    started.child.terminate(60)
    assert started.wait() == -signal.SIGKILL


def test_a_signal_after_the_end_goes_nowhere(loop: Loop) -> None:
    started = Started(loop, "")
    started.wait()
    started.child.signal(signal.SIGKILL)


def test_a_group_takes_its_children_along(loop: Loop) -> None:
    text = "import subprocess as s, sys; print(s.Popen([sys.executable, '-c', 'import time; time.sleep(600)']).pid)"
    started = Started(loop, text, new_group=True)
    started.wait()
    grandchild = int(started.lines[0])

    def gone() -> bool:
        try:
            return Path(f"/proc/{grandchild}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
        except (FileNotFoundError, ProcessLookupError):
            return True

    loop.until(gone)


def test_a_grandchild_that_keeps_the_output_open_does_not_hold_the_end_up(loop: Loop) -> None:
    text = "import os, time\nif os.fork() == 0: time.sleep(600)\nprint(os.getpid(), flush=True)"
    started = Started(loop, text, new_group=True)
    assert started.wait() == 0


def test_a_child_may_close_its_output_and_live_on(loop: Loop) -> None:
    text = "import os, signal; os.close(1); os.close(2); signal.pause()"
    started = Started(loop, text)
    loop.until(lambda: loop.watched == 1)
    started.child.signal(signal.SIGTERM)
    assert started.wait() == -signal.SIGTERM


def test_killing_at_the_end_tells_nobody(loop: Loop) -> None:
    started = Started(loop, "import time; time.sleep(600)")
    started.child.kill_now()
    assert started.child.exit == -signal.SIGKILL
    assert started.ended == []


def test_a_group_can_be_signalled(loop: Loop) -> None:
    started = Started(loop, "import time; time.sleep(600)", new_group=True)
    started.child.signal(signal.SIGKILL)
    assert started.wait() == -signal.SIGKILL


@pytest.mark.parametrize(
    ("status", "text"),
    [(0, "exit status 0"), (3, "exit status 3"), (-9, "killed by SIGKILL"), (-250, "killed by signal 250")],
)
def test_an_exit_is_said_in_words(status: int, text: str) -> None:
    assert exit_text(status) == text


def test_output_that_was_not_read_before_the_end_is_not_lost(loop: Loop) -> None:
    started = Started(loop, "for number in range(2000): print('line', number)")
    os.waitid(os.P_PID, started.child.pid, os.WEXITED | os.WNOWAIT)
    started.wait()
    assert started.lines == [f"line {number}" for number in range(2000)]


def test_a_child_that_cannot_be_watched_is_not_left_running(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(pid: int) -> int:
        started.append(pid)
        raise OSError(errno.EMFILE, "too many open files")

    started: list[int] = []
    monkeypatch.setattr(os, "pidfd_open", refuse)
    with pytest.raises(OSError, match="too many"):
        Started(loop, "import time; time.sleep(600)")
    with pytest.raises(ChildProcessError):
        os.waitpid(started[0], 0)
