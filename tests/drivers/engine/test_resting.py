"""Models that sleep where a place keeps them: what runs when they wake, and what becomes of those that cannot."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
from simulated_cuda import SimulatedCuda, SimulatedPlace
from tiny_models import PROMPT, ask, choice, silent, source_of
from torch import Tensor

from llmos.drivers.contract import LoadSettings
from llmos.drivers.engine.engine import Engine
from llmos.drivers.engine.paged_runner import PagedRunner
from llmos.drivers.engine.place import Anchor, Report, Rested
from llmos.drivers.ops.table import OpTable
from llmos.syscalls.errors import BadState, NoDeviceMemory


class Kept:
    """Notes what it was given; wakes as it is told to."""

    host_bytes = 0

    def __init__(self, kept: Iterable[Tensor], dropped: Iterable[Tensor]) -> None:
        self.kept, self.dropped = list(kept), list(dropped)
        self.said = ""
        self.error: Exception | None = None

    def wake(self, report: Report) -> str:
        if self.error is not None:
            raise self.error
        report(1, 2)
        return self.said


class Keeping(SimulatedPlace):
    """A place where models rest, as far as the engine sees."""

    def __init__(self) -> None:
        self.rested: list[Kept] = []
        self.log: list[str] = []
        self.why = ""

    def anchor(self, kept: Iterable[Tensor], dropped: Iterable[Tensor]) -> Anchor:
        self.log.append(f"anchor {sum(tensor.nbytes for tensor in kept)} {len(list(dropped))}")
        return Anchor(self, self.why)

    def rest(self, kept: Iterable[Tensor], dropped: Iterable[Tensor]) -> Rested | None:
        self.rested.append(Kept(kept, dropped))
        return self.rested[-1]


def test_a_model_rests_with_its_pages_and_wakes_without_its_files(ops: OpTable, llama: Path) -> None:
    with SimulatedCuda():
        place = Keeping()
        engine = Engine(ops, place=place)
        engine.load("m", source_of(llama), LoadSettings(), silent)
        resident = engine._entries["m"].awake()
        tokens = choice(engine, ask(PROMPT, max_tokens=4)).tokens
        asleep = engine.sleep("m")
        assert all(row.allocator == 0 for row in asleep.rows)
        [rested] = place.rested
        (runner,) = (each for each in resident.runners if isinstance(each, PagedRunner))
        assert [id(tensor) for tensor in rested.dropped] == [id(runner._model.pool.tensor)]
        assert sum(tensor.nbytes for tensor in {id(each): each for each in rested.kept}.values()) == resident.bytes
        with pytest.raises(BadState):
            engine.submit(ask(PROMPT))
        told: list[tuple[int, int, str, str]] = []
        engine.wake("m", lambda *call: told.append(call))
        assert told == [(1, 2, "bytes", "wake")]
        assert engine._entries["m"].awake() is resident
        again = choice(engine, ask(PROMPT, id="s", max_tokens=4))
        assert again.tokens == tokens
        engine.close()


def test_what_was_captured_is_dropped_when_a_model_lies_elsewhere(
    ops: OpTable, llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr(PagedRunner, "forget_graphs", lambda _self, why: told.append(why))
    with SimulatedCuda():
        place = Keeping()
        engine = Engine(ops, place=place)
        engine.load("m", source_of(llama), LoadSettings(), silent)
        for said in ("", "2 of 3 lie elsewhere"):
            engine.sleep("m")
            place.rested[-1].said = said
            engine.wake("m", silent)
        engine.close()
    assert told == ["2 of 3 lie elsewhere"]


def test_addresses_are_settled_before_anything_is_captured_for_them(
    ops: OpTable, llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with SimulatedCuda():
        place = Keeping()
        monkeypatch.setattr(PagedRunner, "prepare", lambda _self, _alive: place.log.append("prepare"))
        engine = Engine(ops, place=place)
        assert engine.load("m", source_of(llama), LoadSettings(), silent).rung_reasons == ()
        resident = engine._entries["m"].awake()
        assert place.log == [f"anchor {resident.bytes} 1", "prepare"] and resident.anchor.held is place
        assert engine.resting_bytes() == 0
        engine.sleep("m")
        place.rested[-1].host_bytes = 77
        assert engine.resting_bytes() == 77
        place.why = "no compiler"
        [reason] = engine.load("n", source_of(llama), LoadSettings(), silent).rung_reasons
        assert "captured is made again" in reason and reason.endswith("no compiler")
        engine.close()


@pytest.mark.slow
def test_without_memory_a_model_sleeps_on(ops: OpTable, llama: Path) -> None:
    with SimulatedCuda():
        place = Keeping()
        engine = Engine(ops, place=place)
        engine.load("m", source_of(llama), LoadSettings(), silent)
        engine.sleep("m")
        [rested] = place.rested
        rested.error = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        with pytest.raises(NoDeviceMemory):
            engine.wake("m", silent)
        rested.error = RuntimeError("something else")
        with pytest.raises(RuntimeError, match="something else"):
            engine.wake("m", silent)
        rested.error = None
        engine.wake("m", silent)
        assert choice(engine, ask(PROMPT, max_tokens=4)).tokens
        engine.sleep("m")
        assert engine.unload("m") == 0
        engine.close()


@pytest.mark.slow
def test_a_draft_model_rests_with_its_model(ops: OpTable, llama: Path) -> None:
    source = source_of(llama)
    drafted = type(source)(source.path, source.version, source.files, source.manifest, source)
    with SimulatedCuda():
        place = Keeping()
        engine = Engine(ops, place=place)
        engine.load("m", drafted, LoadSettings(draft="other"), silent)
        resident = engine._entries["m"].awake()
        guessing = {"max_tokens": 6, "speculative": {"method": "draft", "tokens": 3}}
        tokens = choice(engine, ask(PROMPT, **guessing)).tokens
        engine.sleep("m")
        [rested] = place.rested
        storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage() for tensor in rested.kept}
        assert len(rested.dropped) == 2 and sum(each.nbytes() for each in storages.values()) == resident.bytes
        for tensor in rested.dropped:
            tensor.fill_(math.nan)
        engine.wake("m", silent)
        assert engine._entries["m"].awake() is resident
        assert choice(engine, ask(PROMPT, id="again", **guessing)).tokens == tokens
        engine.close()
