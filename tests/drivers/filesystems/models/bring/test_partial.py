"""What was fetched so far: one job at a time, kept for a while, then swept."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

from llmos.drivers.filesystems.models.bring import partial as partials
from llmos.drivers.filesystems.models.bring.partial import finished, partial, sweep


def quiet(*_said: Any) -> None:
    """Progress that nobody watches."""


def test_it_is_kept_until_it_is_finished(tmp_path: Path) -> None:
    with partial(tmp_path, "hf:a", quiet) as folder:
        (folder / "x").write_text("half")
    with partial(tmp_path, "hf:b", quiet) as other:
        assert other != folder and not (other / "x").exists()
    with partial(tmp_path, "hf:a", quiet) as again:
        assert again == folder and (again / "x").read_text() == "half"
        finished(again)
    assert not folder.exists()


def test_a_second_job_waits_for_the_first_and_says_so(tmp_path: Path) -> None:
    said: list[str] = []
    waiting, entered = threading.Event(), threading.Event()

    def tell(_done: int, _total: int, _unit: str, stage: str) -> None:
        said.append(stage)
        waiting.set()

    def second() -> None:
        with partial(tmp_path, "hf:a", tell) as folder:
            assert folder.is_dir()
            entered.set()

    with partial(tmp_path, "hf:a", quiet) as folder:
        thread = threading.Thread(target=second)
        thread.start()
        assert waiting.wait(20) and not entered.is_set()
        finished(folder)
    thread.join(20)
    assert entered.is_set() and set(said) == {"waiting for another job"}


def test_only_what_is_old_and_unused_is_swept(tmp_path: Path) -> None:
    for name in ("old", "young", "used"):
        with partial(tmp_path, name, quiet) as folder:
            (folder / "x").write_bytes(bytes(100_000))
            if name != "young":
                for path in (folder / "x", folder / ".source.json", folder.with_suffix(".lock")):
                    os.utime(path, (1, 1))
    with partial(tmp_path, "used", quiet) as used:
        for path in (used / "x", used / ".source.json", used.with_suffix(".lock")):
            os.utime(path, (1, 1))
        assert sweep(tmp_path) >= 100_000
    left = [path for path in (tmp_path / ".llmos" / partials.AREA).iterdir() if path.is_dir()]
    assert len(left) == 2
    assert sweep(tmp_path, 0.0) >= 200_000 and sweep(tmp_path, 0.0) == 0
