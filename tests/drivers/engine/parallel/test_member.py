"""What a rank does with orders: those for models that it does not have are nothing to it, and End ends it.

Whole models on real ranks are in `tests/system/test_ranks.py`.
"""

from __future__ import annotations

import os
from multiprocessing import connection
from pathlib import Path

import pytest
from llmos.drivers.contract import LoadSettings
from llmos.drivers.engine.parallel import coding
from llmos.drivers.engine.parallel.member import Pipe, Rank, serve
from llmos.drivers.engine.parallel.messages import Broken, Drop, End, Failed, Go, Here, Join, Load, Read
from llmos.drivers.engine.place import PROCESSOR
from llmos.drivers.ops.table import OpTable
from llmos.syscalls.errors import BadModel
from rank_threads import together
from tiny_models import build, source_of


def test_orders_about_one_model_are_answered_in_turn(tmp_path: Path, ops: OpTable) -> None:
    """A team of one: it loads, is told to drop a model while it loads, and says what is wrong with a folder."""
    folder = source_of(build(tmp_path / "m"))
    (tmp_path / "empty").mkdir()
    ours, theirs = connection.Pipe()
    with ours, theirs:
        for order in (
            Drop(9), Load(1, folder, LoadSettings(), 4), Go(1), Drop(1), Load(2, folder, LoadSettings(), 4), Drop(2),
            Load(3, source_of(tmp_path / "empty"), LoadSettings(), 4), End(),
        ):  # fmt: skip
            ours.send_bytes(coding.encode(order))
        together(1, lambda team: Rank(Pipe(os.dup(theirs.fileno())), ops, PROCESSOR, team).run())
        said = [coding.said(ours.recv_bytes()) for _ in range(4)]
    assert [type(each) for each in said] == [Read, Here, Read, Failed]
    assert said[1].bytes > 0
    assert isinstance(said[3].error, BadModel)


def test_what_escapes_is_said_before_the_end() -> None:
    ours, theirs = connection.Pipe()
    with ours, theirs:
        ours.send_bytes(coding.encode(Join(1, 2, "llmos.drivers.devices.cpu:nowhere", "cpu0", 1, {})))
        with pytest.raises(AttributeError, match="nowhere"):
            serve(os.dup(theirs.fileno()))
        said = coding.said(ours.recv_bytes())
    assert isinstance(said, Broken)
    assert "nowhere" in said.cause
