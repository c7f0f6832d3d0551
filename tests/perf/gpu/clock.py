"""How long things take on a device: under a CUDA graph and by its own clock where there is one."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence

import torch

Run = Callable[[], object]

ROUNDS = 7
AIM_S = 0.02
"""How long one measurement is to take: the same thing is done as often as that needs."""
MOST = 400


def synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def host_seconds(run: Run, device: str, rounds: int = ROUNDS) -> float:
    """The median of the wall clock, from the call until the device is done."""
    samples = []
    for _ in range(rounds + 1):
        synchronize(device)
        began = time.perf_counter()
        run()
        synchronize(device)
        samples.append(time.perf_counter() - began)
    return statistics.median(samples[1:])


def seconds(runs: Sequence[Run], device: str, rounds: int = ROUNDS, captured: bool = True) -> float:
    """What one run takes; several do the same on tensors of their own, so that none finds its own in a cache. What
    waits for the device cannot be `captured`."""
    for run in runs:
        run()
    if device != "cuda" or not captured:
        return host_seconds(lambda: [run() for run in runs], device, rounds) / len(runs)
    once = host_seconds(lambda: [run() for run in runs], device, 1)
    replay, times = _graph(runs, max(1, min(MOST // len(runs), int(AIM_S / max(once, 1e-6)))))
    samples = []
    for _ in range(rounds + 1):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        replay()
        end.record()
        end.synchronize()
        samples.append(begin.elapsed_time(end) / 1e3 / times)
    return statistics.median(samples[1:])


def _graph(runs: Sequence[Run], repeats: int) -> tuple[Callable[[], None], int]:
    """All runs so many times over, captured; what cannot be captured is called."""
    graph = torch.cuda.CUDAGraph()

    def every() -> None:
        for _ in range(repeats):
            for run in runs:
                run()

    try:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for run in runs:
                run()
        torch.cuda.current_stream().wait_stream(stream)
        with torch.cuda.graph(graph):
            every()
    except RuntimeError:
        torch.cuda.synchronize()
        return every, repeats * len(runs)
    return graph.replay, repeats * len(runs)


def copies(nbytes: int, device: str, beyond: int = 200 << 20) -> int:
    """How many copies of something are larger together than the caches."""
    return max(1, min(64, -(-beyond // max(1, nbytes)))) if device == "cuda" else 1
