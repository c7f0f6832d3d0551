"""How fast the machine could be at best: for each step the larger of reading what must be read and of computing it."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from peers.peer import Job

from .shapes import RowWork, Shape, Work


@dataclass(frozen=True)
class Rates:
    """Of one run: bytes a second from memory, and operations a second of a matrix product by its rows."""

    bandwidth: float
    products: Mapping[int, float]

    def rate(self, rows: int) -> float:
        """Operations a second at so many rows: between two that were measured, along the logarithm of the rows."""
        known = sorted(self.products)
        if rows <= known[0]:
            return self.products[known[0]]
        if rows >= known[-1]:
            return self.products[known[-1]]
        above = bisect_left(known, rows)
        low, high = known[above - 1], known[above]
        share = math.log(rows / low) / math.log(high / low)
        return self.products[low] ** (1 - share) * self.products[high] ** share

    def seconds(self, work: Work) -> float:
        """How long a step must take."""
        computing = work.flops / self.rate(work.tokens)
        if work.logits:
            computing += work.head_flops / self.rate(work.logits)
        return max(work.bytes / self.bandwidth, computing)


def step_seconds(shape: Shape, rates: Rates, rows: Sequence[RowWork]) -> float:
    """How long a step of these rows must take."""
    return rates.seconds(Work.of(shape, rows))


def ideal_seconds(shape: Shape, rates: Rates, jobs: Sequence[Job]) -> float:
    """When the last of these jobs could be done, had each step taken no longer than it must.

    A prompt goes through whole in the first step after it has arrived, with a token of every job under way.
    """
    clock = 0.0
    waiting = sorted(jobs, key=lambda job: job.at)
    running: list[tuple[Job, int]] = []
    while waiting or running:
        if not running:
            clock = max(clock, waiting[0].at)
        arrived = [job for job in waiting if job.at <= clock]
        waiting = waiting[len(arrived) :]
        rows = [RowWork(1, len(job.prompt) + made) for job, made in running]
        rows += [RowWork(len(job.prompt), len(job.prompt)) for job in arrived]
        clock += step_seconds(shape, rates, rows)
        running = [(job, made + 1) for job, made in [*running, *((job, 0) for job in arrived)]]
        running = [(job, made) for job, made in running if made < job.new_tokens]
    return clock


def decode_seconds(shape: Shape, rates: Rates, rows: int, length: int) -> float:
    """How long a step of one token for each of so many rows must take, with `length` tokens in each cache."""
    return step_seconds(shape, rates, [RowWork(1, length)] * rows)


def prefill_seconds(shape: Shape, rates: Rates, tokens: int, cached: int = 0) -> float:
    """How long a prompt must take, whose first `cached` tokens are computed already."""
    return step_seconds(shape, rates, [RowWork(tokens - cached, tokens)])
