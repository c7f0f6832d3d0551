from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from llmos.drivers.filesystems.locks import locked_folder, tree_lock, try_lock
from llmos.drivers.filesystems.paths import open_folder

HOLD = """
import sys
from pathlib import Path
from llmos.drivers.filesystems.locks import {import_}
{body}
"""


def test_shared_locks_go_together_and_exclusive_ones_do_not(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    first, second = try_lock(file, exclusive=False), try_lock(file, exclusive=False)
    assert first is not None and second is not None
    assert try_lock(file, exclusive=True) is None
    os.close(first)
    assert try_lock(file, exclusive=True) is None
    os.close(second)
    third = try_lock(file, exclusive=True)
    assert third is not None
    assert try_lock(file, exclusive=False) is None
    os.close(third)


def test_a_killed_process_holds_nothing(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    body = f"print(try_lock(Path({str(file)!r}), True), flush=True); sys.stdin.read()"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD.format(import_="try_lock", body=body)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with holder:
        assert holder.stdout is not None and holder.stdout.readline().strip().isdigit()
        assert try_lock(file, exclusive=False) is None
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    lock = try_lock(file, exclusive=True)
    assert lock is not None
    os.close(lock)


def test_the_lock_of_a_tree_excludes_other_processes(tmp_path: Path) -> None:
    counter = tmp_path / "counter"
    counter.write_text("0")
    body = f"""
for _ in range(200):
    with tree_lock(Path({str(tmp_path)!r})):
        value = int(Path({str(counter)!r}).read_text())
        Path({str(counter)!r}).write_text(str(value + 1))
"""
    command = [sys.executable, "-c", HOLD.format(import_="tree_lock", body=body)]
    for process in [subprocess.Popen(command) for _ in range(2)]:
        assert process.wait() == 0
    assert counter.read_text() == "400"


def test_locks_are_released_after_an_error(tmp_path: Path) -> None:
    for _ in range(2):
        try:
            with open_folder(tmp_path, ()) as at, locked_folder(at), tree_lock(tmp_path):
                raise ValueError
        except ValueError:
            continue
    lock = try_lock(tmp_path / ".llmos" / "lock", exclusive=True)
    assert lock is not None
    os.close(lock)
