from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from llmos.drivers.filesystems.scratch import Scratch

TAKE = """
import sys
from pathlib import Path
from llmos.drivers.filesystems.scratch import Scratch
slot = Scratch(Path(sys.argv[1])).take()
(slot.folder / "deep").mkdir()
(slot.folder / "deep" / "file").write_text("half")
print(slot.id, flush=True)
sys.stdin.read()
"""


def entries(root: Path) -> list[str]:
    return sorted(path.name for path in (root / ".llmos" / "scratch").iterdir())


def test_nothing_is_written_before_it_is_needed(tmp_path: Path) -> None:
    assert Scratch(tmp_path).sweep() == 0
    assert not any(tmp_path.iterdir())


def test_a_slot_is_empty_and_leaves_nothing(tmp_path: Path) -> None:
    slot = Scratch(tmp_path).take()
    assert not any(slot.folder.iterdir())
    (slot.folder / "file").write_text("x")
    assert Scratch(tmp_path).sweep() == 0
    slot.close()
    assert entries(tmp_path) == []


def test_what_a_killed_process_left_is_swept_and_a_live_one_is_not(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", TAKE, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout is not None
        id = owner.stdout.readline().strip()
        assert Scratch(tmp_path).sweep() == 0
        assert id in entries(tmp_path)
        owner.send_signal(signal.SIGKILL)
        owner.wait()
    assert (tmp_path / ".llmos" / "scratch" / id / "deep" / "file").exists()
    assert Scratch(tmp_path).sweep() == 1
    assert entries(tmp_path) == []


def test_a_lock_without_its_folder_is_swept_too(tmp_path: Path) -> None:
    scratch = Scratch(tmp_path)
    scratch.take().close()
    (tmp_path / ".llmos" / "scratch" / "old.lock").touch()
    assert scratch.sweep() == 1
    assert entries(tmp_path) == []
