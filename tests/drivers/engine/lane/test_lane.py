"""Steps as a GPU sees them: everything is made there, nothing is asked of it, and mostly nothing is told to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_cuda import DEVICE, FakeCuda, fake_module, shaped_ops
from lanes import Lagging, lane_engine, runner
from slow_cases import slow_but
from torch import Tensor

from llmos.drivers.engine import attention
from llmos.drivers.engine.capture import Deferred, Eager
from llmos.drivers.engine.lane.lane import Lane
from llmos.drivers.engine.lane.settings import GREEDY, Settings
from llmos.drivers.engine.paged import PagedModel, layers_of
from llmos.drivers.engine.pages import PagePool
from llmos.drivers.engine.shared import SharedModule
from llmos.drivers.engine.steps import Row, RowStep
from llmos.drivers.ops.table import OpTable

PAGES = 9


class Never:
    """Numbers that nobody asks for."""

    def wait(self) -> list[int]:
        raise AssertionError("a step was waited for")


class Aside(Eager):
    """Keeps what would go to the host."""

    def __init__(self) -> None:
        super().__init__(DEVICE, (1, 2, 4))
        self.sent: list[Tensor] = []
        self.told = 0

    def up(self, values: Sequence[Any], dtype: torch.dtype | None = None) -> Tensor:
        """Twice, of which one is taken: a single number would be a constant, whose copy to a GPU cannot be fake."""
        self.told += 1
        return super().up([values, values], dtype)[0]

    def down(self, numbers: Tensor) -> Deferred:
        self.sent.append(numbers)
        return Never()


def decoding(row: Row) -> RowStep:
    """The row goes on by a token that is not known."""
    step = RowStep(row, row.computed, 1, 1)
    row.computed, row.ahead = row.computed + 1, row.ahead or 1
    return step


@pytest.mark.parametrize("name", slow_but(["llama"], ["llama", "qwen2", "qwen3", "gemma2", "mistral", "phi3"]))
def test_a_decode_step_stays_on_the_gpu_and_neither_waits_nor_is_told_anything(name: str) -> None:
    with FakeCuda() as gpu, torch.inference_mode():
        module = fake_module(name)
        module.set_attn_implementation(attention.NAME)
        layers, ops, capture = layers_of(module, 128), shaped_ops(), Aside()
        model = PagedModel(module, layers, PagePool(layers.shapes, PAGES, torch.bfloat16, device="cuda"), ops)
        assert model.packed is not None
        lane = Lane(model.packed, SharedModule(module), ops, capture, 8, 128, PAGES - 1)
        lane.prepare(lambda: None)
        rows = [Row("a", [1, 2, 3], pages=[1]), Row("b", [4, 5, 6, 7], pages=[2])]
        settings = {row: Settings(temperature=0.5, seed=3) for row in rows}
        first = lane.launch([RowStep(row, 0, len(row.tokens), 1) for row in rows], settings)
        assert first.logits.device == DEVICE and first.logits.shape == (2, 320)
        for row in rows:
            row.computed, row.ahead = len(row.tokens), 1
        lane.launch([decoding(row) for row in rows], settings)
        for row in rows:
            row.tokens.append(9)
        gpu.crossings.clear()
        capture.told = 0
        launched = lane.launch([decoding(row) for row in rows], settings)
        assert launched.logits.shape == (2, 320) and not gpu.crossings and not capture.told
        for row in rows:
            row.tokens.append(9)
        rows[0].pages.append(3)
        lane.launch([decoding(row) for row in rows], settings)
        assert not gpu.crossings and capture.told == 1, "a new page is one small copy"
        fresh = Row("c", [1, 2, 3, 4, 5], pages=[4])
        lane.launch([decoding(rows[0]), RowStep(fresh, 0, 5, 1)], {**settings, fresh: GREEDY})
        assert not gpu.to_host() and {sent.device for sent in capture.sent} == {DEVICE}
        assert [len(sent) for sent in capture.sent] == [2, 2, 2, 2, 2]


@pytest.fixture
def lane(ops: OpTable, llama: Path) -> Lane:
    return runner(lane_engine(llama, ops, Lagging(), pages=20))._lane


def prefilled(lane: Lane, tokens: Mapping[str, Sequence[int]], settings: Mapping[str, Settings]) -> list[Row]:
    """Rows that hold their next token on the device, where they are chosen there."""
    rows = [Row(id, list(given), pages=[2 * at, 2 * at + 1]) for at, (id, given) in enumerate(tokens.items())]
    chosen = {row: settings[row.id] for row in rows if row.id in settings}
    lane.launch([RowStep(row, 0, len(row.tokens), 1) for row in rows], chosen).tokens.wait()
    for row in rows:
        row.computed, row.ahead = len(row.tokens), int(row.id in settings)
    return rows


@torch.inference_mode()
def test_rows_of_the_host_go_beside_those_of_the_device(lane: Lane) -> None:
    settings = {"a": GREEDY, "c": GREEDY}
    rows = prefilled(lane, {"a": range(3, 12), "b": range(20, 27), "c": range(40, 51)}, settings)
    rows[1].tokens.append(77)
    chosen = {row: GREEDY for row in rows if row.id in settings}
    launched = lane.launch([RowStep(row, row.computed, 1, 1) for row in rows], chosen)
    assert [step.row.id for step in launched.chosen] == ["a", "c"] and len(launched.logits) == 3
    best = launched.logits.argmax(-1).tolist()
    assert launched.tokens.wait() == [best[0], best[2]]


@torch.inference_mode()
def test_a_token_on_the_device_goes_into_a_step_with_prompts(lane: Lane) -> None:
    (row,) = prefilled(lane, {"a": range(3, 12)}, {"a": GREEDY})
    seat = lane._seats.of(row)
    assert seat is not None
    held = int(lane._states.matrix[seat.number, 0])
    fresh = Row("b", list(range(60, 70)), pages=[9])
    steps = [RowStep(row, row.computed, 1, 1), RowStep(fresh, 0, 10, 1)]
    fed = lane.launch(steps, {row: GREEDY, fresh: GREEDY})
    row.tokens.append(held)
    row.ahead = 0
    told = lane.launch(steps, {row: GREEDY, fresh: GREEDY})
    assert torch.equal(fed.logits, told.logits) and fed.tokens.wait() == told.tokens.wait()


@torch.inference_mode()
def test_a_token_that_is_nowhere_is_an_error(lane: Lane) -> None:
    (row,) = prefilled(lane, {"a": range(3, 12)}, {"a": GREEDY})
    lane._seats.clear()
    fresh = Row("b", list(range(60, 70)), pages=[9])
    with pytest.raises(ValueError, match="neither known"):
        lane.launch([RowStep(row, row.computed, 1, 1), RowStep(fresh, 0, 10, 1)], {row: GREEDY, fresh: GREEDY})


def test_what_was_made_is_made_again_after_it_was_forgotten(ops: OpTable, llama: Path) -> None:
    capture = Lagging()
    lane = runner(lane_engine(llama, ops, capture))._lane
    sizes = [f"a decode step of {size} rows" for size in (8, 4, 2, 1)]
    assert capture.made == sizes, "the largest first"
    lane.forget()
    lane.prepare(lambda: None)
    assert capture.made == sizes * 2
