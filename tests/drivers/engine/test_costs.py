"""The time of a step is guessed, then learned, and pauses of the machine are not believed."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmos.drivers.engine.costs import Speed, StepCost, StepLoad, Work
from llmos.drivers.engine.steps import Row, RowStep

WORK = Work(weight_bytes=1e9, token_flops=1e9, key_bytes=24_000)
Device = Callable[[StepLoad], float]


def cpu(load: StepLoad) -> float:
    """Two cores: reading and computing overlap in part, some time for each row and each step."""
    weights, compute = 0.055, 0.0042 * load.tokens
    attention = 2e-6 * load.keys + 4e-7 * load.pairs
    return 0.004 + max(weights, compute) + 0.2 * min(weights, compute) + attention + 4e-4 * load.logits


def stepped(load: StepLoad) -> float:
    """Matrix products in tiles: a step of 9 tokens takes what one of 16 takes."""
    tokens = 16 * math.ceil(load.tokens / 16) if load.tokens > 1 else 1
    return 0.03 + 0.001 * tokens + 1e-6 * load.keys + 1e-7 * load.pairs


def gpu(load: StepLoad) -> float:
    return 0.0006 + max(0.0009, 4e-6 * load.tokens) + 3e-8 * load.keys + 1e-10 * load.pairs


DEVICES = [cpu, stepped, gpu]


def some_load(draw: random.Random) -> StepLoad:
    """Rows that decode, and often a part of a prompt."""
    load = StepLoad()
    for _ in range(draw.choice([0, 1, 1, 2, 4, 8, 16, 32])):
        load = load.plus(draw.randrange(1500), 1, 1)
    if load.tokens == 0 or draw.random() < 0.5:
        load = load.plus(draw.choice([0, 100, 1000, 3000]), draw.choice([16, 24, 64, 128, 512]), draw.randrange(2))
    return load


def trained(device: Device, steps: int, seed: int = 0) -> StepCost:
    """After so many steps with noise, one in twenty of them with a pause."""
    draw, cost = random.Random(seed), StepCost(WORK)
    for _ in range(steps):
        load = some_load(draw)
        seconds = device(load) * math.exp(draw.gauss(0.0, 0.04))
        cost.observe(load, seconds * (8.0 if draw.random() < 0.05 else 1.0))
    return cost


def errors(cost: StepCost, device: Device) -> list[float]:
    draw = random.Random(99)
    loads = [some_load(draw) for _ in range(200)]
    return sorted(abs(math.log(cost.seconds(load) / device(load))) for load in loads)


def test_a_load_adds_up() -> None:
    load = StepLoad().plus(0, 4, 0).plus(10, 1, 1)
    assert load == StepLoad(tokens=5, keys=4 + 11, pairs=1 + 2 + 3 + 4 + 11, logits=1)
    row = Row("r", [0] * 11)
    assert StepLoad.of([RowStep(row, 0, 4, 0), RowStep(row, 10, 1, 1)]) == load


def test_the_first_guess_is_what_bytes_and_operations_say() -> None:
    cost = StepCost(WORK, Speed(flops=100e9, memory_bytes=20e9, host_bytes=4e9))
    assert cost.seconds(StepLoad()) == 0.0
    assert cost.seconds(StepLoad(1, 1, 1, 1)) == pytest.approx(1e9 / 20e9, rel=0.05)
    assert cost.seconds(StepLoad(512, 512, 512 * 256, 1)) == pytest.approx(512 * 1e9 / 100e9, rel=0.05)
    both = cost.seconds(StepLoad(tokens=5))
    assert both == pytest.approx(2 ** (1 / 3) * 1e9 / 20e9), "reading and computing overlap, but not wholly"
    assert cost.swap_seconds(10) == pytest.approx(10 * 16 * 24_000 / 4e9)


@pytest.mark.parametrize("device", DEVICES)
def test_it_learns_what_a_device_takes(device: Device) -> None:
    found = errors(trained(device, 300), device)
    assert statistics.median(found) < 0.10
    assert found[int(0.9 * len(found))] < 0.25


@pytest.mark.parametrize("device", DEVICES)
def test_a_steady_batch_with_a_prompt_is_known_within_a_few_percent(device: Device) -> None:
    """What the bound on the gap between tokens rests on."""
    draw, cost = random.Random(1), trained(device, 50)
    decode = StepLoad()
    for _ in range(8):
        decode = decode.plus(600, 1, 1)
    mixed = decode.plus(2000, 24, 0)
    for _ in range(60):
        for load in (decode, mixed):
            cost.observe(load, device(load) * math.exp(draw.gauss(0.0, 0.02)))
    for load in (decode, mixed):
        assert cost.seconds(load) == pytest.approx(device(load), rel=0.06)


def test_pauses_are_not_believed() -> None:
    cost, load = trained(cpu, 200), StepLoad(8, 4000, 4000, 8)
    before = cost.seconds(load)
    for _ in range(3):
        cost.observe(load, 5.0)
    assert cost.seconds(load) < 1.35 * before


def test_a_device_that_became_slower_is_noticed() -> None:
    """However long it was known as it was; and that it is the device, not one kind of step."""
    cost, other, load = trained(cpu, 3000), StepLoad().plus(500, 64, 0), StepLoad(8, 4000, 4000, 8)
    for _ in range(60):
        cost.observe(load, 6.0 * cpu(load))
    assert cost.seconds(load) == pytest.approx(6.0 * cpu(load), rel=0.1)
    assert cost.seconds(other) > 1.25 * cpu(other)


def test_nothing_is_learned_from_nothing() -> None:
    cost, load = StepCost(WORK), StepLoad(8, 4000, 4000, 8)
    before = cost.seconds(load)
    cost.observe(StepLoad(), 1.0)
    cost.observe(load, 0.0)
    assert cost.seconds(load) == before


@given(
    steps=st.integers(0, 30), start=st.integers(0, 4000), most=st.integers(0, 600), every=st.booleans(),
    rows=st.integers(0, 32), share=st.floats(0.5, 4.0),
)  # fmt: skip
@settings(max_examples=100, deadline=None)
def test_what_fits_takes_no_longer_than_asked(
    steps: int, start: int, most: int, every: bool, rows: int, share: float
) -> None:
    cost, load = trained(cpu, steps), StepLoad()
    for _ in range(rows):
        load = load.plus(500, 1, 1)
    bound = share * cost.seconds(load.plus(start, 1, 1))
    count = cost.fitting(load, start, most, bound, every)
    assert 0 <= count <= most
    if count:
        assert cost.seconds(load.plus(start, count, count if every else 1)) <= bound
    if count < most:
        assert cost.seconds(load.plus(start, count + 1, count + 1 if every else 1)) > bound
    assert cost.fitting(load, start, most, math.inf, every) == most


@given(st.lists(st.tuples(st.integers(1, 100_000), st.floats(1e-6, 1e4)), max_size=60))
@settings(max_examples=100, deadline=None)
def test_any_history_leaves_a_positive_finite_time(history: list[tuple[int, float]]) -> None:
    cost = StepCost(WORK)
    for tokens, seconds in history:
        cost.observe(StepLoad().plus(0, tokens, 1), seconds)
    for tokens in (1, 7, 512, 10_000_000):
        assert 0.0 < cost.seconds(StepLoad().plus(0, tokens, 1)) < math.inf
