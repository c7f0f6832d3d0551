"""Captures as CUDA graphs, on a driver that only writes down what it is asked: the real one needs a GPU."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from llmos.drivers.devices.cuda.graphs import WARM_UPS, CudaGraphs


class Stream:
    """A stream on which things wait for each other."""

    def __init__(self, log: list[str], name: str) -> None:
        self._log, self.name = log, name

    def wait_stream(self, other: Stream) -> None:
        self._log.append(f"{self.name} waits for {other.name}")


class Driver:
    """What is asked of CUDA, in order. A step that waits for the device breaks the capture that it is in."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.capturing = False
        self.pools = 0
        self.main = Stream(self.log, "main")

    def new_pool(self) -> int:
        self.pools += 1
        return self.pools

    @contextlib.contextmanager
    def graph(self, graph: Any, pool: Any, stream: Stream, capture_error_mode: str) -> Iterator[None]:
        self.log.append(f"capture on {stream.name} into pool {pool}")
        self.capturing = True
        try:
            yield
        except RuntimeError:
            self.capturing = False
            raise RuntimeError("operation failed due to a previous error during capture") from None
        self.capturing = False

    def wait(self) -> None:
        if self.capturing:
            raise RuntimeError("operation not permitted when stream is capturing\nmore")

    def graph_object(self) -> Any:
        driver = self

        class Graph:
            def replay(self) -> None:
                driver.log.append("replay")

        return Graph()


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Driver:
    made = Driver()
    replaced = {
        "graph_pool_handle": made.new_pool, "Stream": lambda _device: Stream(made.log, "side"),
        "current_stream": lambda _device: made.main, "stream": lambda _stream: contextlib.nullcontext(),
        "CUDAGraph": made.graph_object, "graph": made.graph,
        "is_current_stream_capturing": lambda: made.capturing,
    }  # fmt: skip
    for name, stand_in in replaced.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)
    return made


@pytest.fixture
def graphs(driver: Driver) -> CudaGraphs:
    return CudaGraphs(torch.device("cuda", 0), "Llama")


def test_a_step_is_warmed_up_beside_and_then_captured(driver: Driver, graphs: CudaGraphs) -> None:
    runs: list[bool] = []
    step = graphs.make(lambda: runs.append(driver.capturing), "a step")
    assert runs == [False] * WARM_UPS + [True]
    assert driver.log == ["side waits for main", "main waits for side", "capture on side into pool 1"]
    step()
    assert driver.log[-1] == "replay" and len(runs) == WARM_UPS + 1 and graphs.refused == {}


def test_steps_of_a_model_share_a_pool_until_they_are_forgotten(driver: Driver, graphs: CudaGraphs) -> None:
    for _ in range(2):
        graphs.make(lambda: None, "a step")
    graphs.forget()
    graphs.make(lambda: None, "a step")
    assert [line[-1] for line in driver.log if "pool" in line] == ["1", "1", "2"]


def test_a_step_that_waits_for_the_device_runs_as_it_is_and_why_is_told(
    driver: Driver, graphs: CudaGraphs, capsys: pytest.CaptureFixture[str]
) -> None:
    runs: list[None] = []

    def waits() -> None:
        driver.wait()
        runs.append(None)

    for size in (2, 1):
        step = graphs.make(waits, f"a step of {size} rows")
    step()
    why = "operation not permitted when stream is capturing"
    assert graphs.refused == {why: ["a step of 2 rows", "a step of 1 rows"]} and len(runs) == 2 * WARM_UPS + 1
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2 and said[0].startswith("Llama: a step of 2 rows") and why in said[0]


def test_an_error_of_the_step_itself_is_its_own(driver: Driver, graphs: CudaGraphs) -> None:
    def fails() -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    with pytest.raises(RuntimeError, match="illegal"):
        graphs.make(fails, "a step")
    assert not graphs.refused
