"""What holds for devices that divide their time as the kernel says: usage, shares, budgets, classes of work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from llmos.drivers.contract import Request, SamplingParams
from llmos.syscalls.errors import NotFound

from .device_bench import MODEL, DeviceBench, Outcome
from .verdicts import Absent, expect, expect_error, optional

LONG = SamplingParams(max_tokens=24, ignore_eos=True)
PARKS = "parks"


def usage(bench: DeviceBench) -> None:
    """usage: what requests that run took so far, growing, and no more than at their end"""
    request, outcomes = _started(bench)
    before = bench.device.usage()
    if not before:
        _finished(bench, outcomes)
        raise Absent("usage() tells of no request while one runs")
    expect(set(before) == {request.id}, f"usage() tells of {sorted(before)}; {request.id} runs")
    for _turn in range(4):
        bench.step(outcomes)
    if not outcomes[request.id].ended:
        now = bench.device.usage()[request.id]
        expect(now.device_ns > before[request.id].device_ns, f"usage() stays at {now.device_ns} ns while it runs")
    done = _finished(bench, outcomes)[0].result()
    last = before[request.id].device_ns
    expect(done.device_ns >= last, f"usage() told {last} ns, the result has {done.device_ns}")
    expect(request.id not in bench.device.usage(), "usage() tells of a request that has ended")


def shares(bench: DeviceBench) -> None:
    """set_shares: taken while requests run, also for models that it does not have"""
    request, outcomes = _started(bench)
    try:
        with optional("set_shares"):
            bench.device.set_shares({MODEL: 0.25, "nobody": 0.75})
            bench.device.set_shares({})
    finally:
        ended = _finished(bench, outcomes)
    expect(ended[0].result().request == request.id, "the request that ran meanwhile did not end well")


def budget(bench: DeviceBench) -> None:
    """set_budget: taken while requests of all classes run, each of which ends once"""
    bench.load()
    with optional("set_budget"):
        bench.device.set_budget({"interactive": 1.0, "batch": 0.2, "background": 0.0, "recompute_tokens": 64})
    asked = [
        replace(bench.request(sampling=LONG), work_class=each)
        for each in ("background", "batch", "interactive", "batch")
    ]
    for outcome in bench.run(*asked):
        outcome.result()
    bench.device.set_budget({})


def preempted(bench: DeviceBench) -> None:
    """preempt: lets others go first, and the request goes on by itself, unchanged"""
    request, outcomes = _started(bench)
    try:
        with optional("preempt"):
            bench.device.preempt(request.id)
            expect_error("preempt of nobody's request", lambda: bench.device.preempt("nobody"), NotFound)
    finally:
        tokens = list(_finished(bench, outcomes)[0].choice.tokens)
    alone = bench.one(replace(request, id=bench.new_id())).choice
    expect(tokens == list(alone.tokens), f"after preempt its tokens are {tokens}, else {list(alone.tokens)}")


def parked(bench: DeviceBench) -> None:
    """features.parks: an interactive request ends first although batch work takes all slots, which then goes on"""
    slots = bench.load().slots
    if not bench.facts.features.get(PARKS):
        raise Absent("facts().features has no parks")
    bench.device.set_budget({"batch": 0.0})
    lower = [replace(bench.request(sampling=LONG), work_class="batch") for _ in range(slots)]
    urgent = bench.request(sampling=SamplingParams(max_tokens=4, ignore_eos=True))
    outcomes: dict[str, Outcome] = {}
    for request in [*lower, urgent]:
        bench.device.submit(request)
        outcomes[request.id] = Outcome()
    while not outcomes[urgent.id].ended:
        bench.step(outcomes)
        early = [request.id for request in lower if outcomes[request.id].ended and not outcomes[urgent.id].ended]
        expect(not early, f"{early} of class batch ended before the interactive request")
    _finished(bench, outcomes)
    bench.device.set_budget({})
    for request in lower:
        expect(len(outcomes[request.id].choice.tokens) == LONG.max_tokens, "a request that was parked lost tokens")


def _started(bench: DeviceBench) -> tuple[Request, dict[str, Outcome]]:
    """A request after its first step."""
    bench.load()
    request = bench.request(sampling=LONG)
    outcomes = {request.id: Outcome()}
    bench.device.submit(request)
    bench.step(outcomes)
    return request, outcomes


def _finished(bench: DeviceBench, outcomes: dict[str, Outcome]) -> list[Outcome]:
    while not all(outcome.ended for outcome in outcomes.values()):
        bench.step(outcomes)
    return list(outcomes.values())


TIME_CHECKS: tuple[Callable[[DeviceBench], None], ...] = (usage, shares, budget, preempted, parked)
