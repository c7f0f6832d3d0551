"""What the machine can do: read bandwidth and the rate of matrix products, each as the best of several ways."""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate

import torch
from torch import Tensor
from torch.nn import functional as F

from llmos.drivers.ops.memory import huge_empty
from llmos.drivers.ops.cpu.ops import register_native
from llmos.drivers.ops.table import OpTable

from .limits import Rates

ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048)
SIDE = 2048
"""Of the square matrix whose products are timed; its 8 MiB stay in the cache."""

STREAM = (128, 2048, 1024)
"""Layers that are streamed through for the bandwidth: count, outputs, inputs; 512 MiB in bfloat16."""
LEAST_SECONDS = 0.02


class Probe:
    """Measures once a round, so that the limits are those of the same run; `rates` are medians over the rounds."""

    def __init__(self, threads: int, stream: tuple[int, int, int] = STREAM, rows: Sequence[int] = ROWS) -> None:
        torch.set_num_threads(threads)
        self._rows = rows
        count, outs, ins = stream
        memory = huge_empty((count, outs, ins), torch.bfloat16).fill_(0.01)
        x = torch.ones(1, ins, dtype=torch.bfloat16)
        words = memory.view(torch.float32).flatten()
        self._bytes = memory.nbytes
        self._reads: Mapping[str, Callable[[], object]] = {
            "sum": words.sum,
            "linear": lambda: [F.linear(x, weight) for weight in memory],
        }
        weight = torch.randn(SIDE, SIDE).bfloat16()
        self._products = _products(weight)
        self.samples: dict[str, list[float]] = defaultdict(list)

    def measure(self) -> None:
        """One round, on a machine that does nothing else."""
        with torch.inference_mode():
            for name, read in self._reads.items():
                self.samples[f"read {name}"].append(self._bytes / _seconds(read))
            for rows in self._rows:
                x = torch.randn(rows, SIDE).bfloat16()
                for name, product in self._products.items():
                    flops = 2.0 * rows * SIDE * SIDE
                    self.samples[f"product {name} {rows}"].append(flops / _seconds(lambda p=product, x=x: p(x)))

    @property
    def rates(self) -> Rates:
        """Of each thing the best way, each way by its median. More rows are never slower: they could be split."""
        median = {name: statistics.median(samples) for name, samples in self.samples.items()}
        best = [max(median[f"product {name} {rows}"] for name in self._products) for rows in self._rows]
        products = dict(zip(self._rows, accumulate(best, max), strict=True))
        return Rates(max(median[f"read {name}"] for name in self._reads), products)


def _products(weight: Tensor) -> dict[str, Callable[[Tensor], Tensor]]:
    """The ways to multiply with a weight: torch's own, oneDNN's with a packed weight, and the project's."""
    packed = torch.ops.mkldnn._reorder_linear_weight(weight, None)
    ways: dict[str, Callable[[Tensor], Tensor]] = {
        "torch": lambda x: F.linear(x, weight),
        "onednn": lambda x: torch.ops.mkldnn._linear_pointwise(x, packed, None, "none", [], ""),
    }
    table = OpTable()
    register_native(table)
    native = table.named("linear", "native")
    if native.supports({"device": "cpu", "dtype": "bfloat16"})[0]:
        ways["native"] = native.call([weight], None)
    return ways


def _seconds(call: Callable[[], object]) -> float:
    """The shortest of at least three calls."""
    best, total, done = float("inf"), 0.0, 0
    while done < 3 or total < LEAST_SECONDS:
        began = time.perf_counter()
        call()
        seconds = time.perf_counter() - began
        best, total, done = min(best, seconds), total + seconds, done + 1
    return best
