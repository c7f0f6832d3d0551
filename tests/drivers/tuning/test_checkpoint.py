"""A crash at any point, and damage to any byte, leaves the last whole checkpoint."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llmos.drivers.tuning import checkpoint
from llmos.drivers.tuning.checkpoint import Checkpoints, Saved
from llmos.syscalls.errors import BadState

IDENTITY = {"recipe": "r", "data": "d"}


def saved(step: int) -> Saved:
    tensors = {"trainable/a": torch.full((2, 3), float(step)), "random/cpu": torch.arange(9, dtype=torch.uint8)}
    return Saved(step, tensors, {"loss": 0.1 + step, "nested": {"x": [1, None]}})


def same(one: Saved | None, step: int) -> bool:
    other = saved(step)
    return (
        one is not None and one.step == step and one.facts == other.facts and one.tensors.keys() == other.tensors.keys()
        and all(torch.equal(one.tensors[name], other.tensors[name]) for name in other.tensors)
    )  # fmt: skip


class Crash(BaseException):
    """The process is gone."""


class CrashAt:
    """Raises at the n-th line that is run in checkpoint.py; `lines` counts them."""

    def __init__(self, at: int) -> None:
        self.at, self.lines = at, 0

    def __enter__(self) -> CrashAt:
        self._before = sys.gettrace()
        sys.settrace(self._trace)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(self._before)

    def _trace(self, frame: FrameType, event: str, _: Any) -> Any:
        code = frame.f_code
        if code.co_filename != checkpoint.__file__ or code.co_name in ("_sync", "_hash"):  # these only read
            return None
        if event == "line":
            self.lines += 1
            if self.lines == self.at:
                raise Crash
        return self._trace


def test_what_is_written_is_read_with_every_bit(tmp_path: Path) -> None:
    store = Checkpoints(tmp_path / "new" / "folder", IDENTITY)
    assert store.newest() is None
    odd = Saved(7, {"t/x": torch.randn(4, 4).t(), "b/y": torch.tensor(1e-40), "h/z": torch.randn(3).bfloat16()}, {})
    store.write(odd)
    read = store.newest()
    assert read is not None and read.step == 7 and read.part("t").keys() == {"x"}
    assert all(torch.equal(read.tensors[name], value) for name, value in odd.tensors.items())
    assert read.tensors["h/z"].dtype == torch.bfloat16


def test_a_crash_at_any_line_leaves_the_last_whole_one(tmp_path: Path) -> None:
    count = 0
    for at in range(1, 10_000):
        folder = tmp_path / str(at)
        store = Checkpoints(folder, IDENTITY, keep=1)
        store.write(saved(1))
        try:
            with CrashAt(at) as counted:
                store.write(saved(2))
        except Crash:
            count += 1
            newest = store.newest()
            assert same(newest, 1) or same(newest, 2), at
            store.write(saved(3))
            assert same(store.newest(), 3) and [path.name for path in folder.iterdir()] == ["step-000000003"]
        else:
            assert counted.lines < at
            break
    assert count > 25


@given(st.data())
def test_damage_to_any_byte_is_seen(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as name:
        store = Checkpoints(Path(name), IDENTITY)
        store.write(saved(1))
        folder = store.write(saved(2))
        file = data.draw(st.sampled_from(sorted(folder.iterdir())))
        content = bytearray(file.read_bytes())
        at = data.draw(st.integers(0, len(content) - 1))
        if data.draw(st.booleans()):
            file.write_bytes(content[:at])
        else:
            content[at] ^= 1 << data.draw(st.integers(0, 7))
            file.write_bytes(content)
        newest = store.newest()
        assert same(newest, 1) or same(newest, 2)  # a blank between two words of JSON may become another
        assert same(newest, 1) or file.suffix == ".json"
        store.write(saved(2))
        assert same(store.newest(), 2)


def test_the_newest_two_are_kept_and_other_files_left_alone(tmp_path: Path) -> None:
    store = Checkpoints(tmp_path, IDENTITY)
    (tmp_path / "notes").write_text("mine")
    for step in (9, 10, 1000):
        store.write(saved(step))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes", "step-000000010", "step-000001000"]


def test_the_same_step_again_keeps_what_is_whole(tmp_path: Path) -> None:
    store = Checkpoints(tmp_path, IDENTITY)
    folder = store.write(saved(4))
    before = (folder / "state.json").stat().st_ino
    assert store.write(saved(4)) == folder
    assert (folder / "state.json").stat().st_ino == before and len(list(tmp_path.iterdir())) == 1


def test_one_of_another_run_is_refused(tmp_path: Path) -> None:
    Checkpoints(tmp_path, IDENTITY).write(saved(1))
    with pytest.raises(BadState, match="another data"):
        Checkpoints(tmp_path, IDENTITY | {"data": "e"}).newest()
    with pytest.raises(BadState, match="identity"):
        Checkpoints(tmp_path, {}).newest()


def test_one_of_another_format_is_none(tmp_path: Path) -> None:
    store = Checkpoints(tmp_path, IDENTITY)
    facts = store.write(saved(1)) / "state.json"
    facts.write_text(json.dumps(json.loads(facts.read_text()) | {"format": 2}))
    assert store.newest() is None
