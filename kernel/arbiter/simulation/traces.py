"""Traces of requests for models, from a generator with a seed.

The models of a trace: 100, of log-uniform sizes between 0.5 and 32 GB, each on a store of its own speed, so that
seconds of a load are not just bytes by another name. The device holds a third of all their bytes. Requests arrive one
every 20 s on average and run for a few seconds, so that a device is rarely held by running requests alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import accumulate, islice
from math import exp, log, pi, sin
from random import Random

GB = 1_000_000_000
MODELS = 100
SIZES_GB = (0.5, 32.0)
STORES = (0.4e9, 1.0e9, 2.5e9)
"""Bytes in a second: a network file system, a disk, a fast disk."""
START_S = 1.0
"""Of a load, whatever its bytes."""
SHARE = 1 / 3
"""Of all bytes, how much the device holds."""
GAP_S = 20.0
RUN_S = 4.0
KEEP_ALIVE_S = (60.0, 300.0, 900.0, 3600.0)
DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Model:
    """What a policy may know of a model from the start."""

    name: str
    bytes: int
    load_s: float
    keep_alive_s: float


@dataclass(frozen=True, slots=True)
class Request:
    """Somebody asks for a model."""

    at: float
    """Seconds since the trace began."""
    model: int
    run_s: float


@dataclass(frozen=True, slots=True)
class Trace:
    """A device, models, and the requests for them in the order of their arrival."""

    name: str
    seed: int
    capacity: int
    models: tuple[Model, ...]
    requests: tuple[Request, ...]


Draw = Callable[[Random, list[float]], Iterator[tuple[float, int]]]
"""Endless arrivals (seconds, model) of models with these weights."""


def catalogue(random: Random, count: int = MODELS) -> tuple[Model, ...]:
    """Models of mixed sizes on stores of mixed speed."""
    low, high = (log(each) for each in SIZES_GB)
    models = []
    for index in range(count):
        size = int(exp(random.uniform(low, high)) * GB)
        load_s = START_S + size / random.choice(STORES)
        models.append(Model(f"m{index:03}", size, load_s, random.choice(KEEP_ALIVE_S)))
    return tuple(models)


def trace(name: str, seed: int, length: int, models: int = MODELS, share: float = SHARE) -> Trace:
    """The trace of this name and seed; the same arguments make the same trace.

    Raises:
        KeyError: there is no generator of this name.
    """
    random = Random(f"{name} {seed}")
    chosen = catalogue(random, models)
    weights = zipf(models, EXPONENTS.get(name, 1.0))
    random.shuffle(weights)
    arrivals = islice(GENERATORS[name](random, weights), length)
    requests = tuple(Request(at, model, random.expovariate(1 / RUN_S)) for at, model in arrivals)
    total, largest = sum(model.bytes for model in chosen), max(model.bytes for model in chosen)
    return Trace(name, seed, max(int(total * share), int(1.5 * largest)), chosen, requests)


def zipf(count: int, exponent: float) -> list[float]:
    """Weights of the most wanted, the second, ...: 1 / rank ** exponent."""
    return [1 / rank**exponent for rank in range(1, count + 1)]


def independent(random: Random, weights: list[float]) -> Iterator[tuple[float, int]]:
    """Each request is for a model drawn anew: what was asked for before says nothing but how much it is wanted."""
    summed, at = list(accumulate(weights)), 0.0
    while True:
        at += random.expovariate(1 / GAP_S)
        yield at, random.choices(range(len(weights)), cum_weights=summed)[0]


def bursty(random: Random, weights: list[float]) -> Iterator[tuple[float, int]]:
    """Somebody works with one model for a while, about ten requests, half a minute apart; some do so at a time."""
    summed, at = list(accumulate(weights)), 0.0
    sessions = random.choices(range(len(weights)), cum_weights=summed, k=3)
    while True:
        at += random.expovariate(1 / GAP_S)
        place = random.randrange(len(sessions))
        if random.random() < 0.1:
            sessions[place] = random.choices(range(len(weights)), cum_weights=summed)[0]
        yield at, sessions[place]


def diurnal(random: Random, weights: list[float]) -> Iterator[tuple[float, int]]:
    """Each model has its hour of the day; nights have a fifth of the requests of days."""
    hours, at = [random.random() for _ in weights], 0.0
    while True:
        at += random.expovariate((1.2 + sin(2 * pi * at / DAY_S)) / 1.2 / GAP_S)
        day = at / DAY_S
        now = [w * (1 + sin(2 * pi * (day + hour))) ** 2 for w, hour in zip(weights, hours, strict=True)]
        yield at, random.choices(range(len(weights)), now)[0]


def scan(random: Random, weights: list[float]) -> Iterator[tuple[float, int]]:
    """Half of the requests go round all models in order, for ever: the worst for whoever keeps what was used last."""
    usual, place = independent(random, weights), 0
    while True:
        at, model = next(usual)
        if random.random() < 0.5:
            yield at, model
        else:
            yield at, place
            place = (place + 1) % len(weights)


def loop(random: Random, weights: list[float]) -> Iterator[tuple[float, int]]:
    """Nothing but the round."""
    at, place = 0.0, 0
    while True:
        at += random.expovariate(1 / GAP_S)
        yield at, place
        place = (place + 1) % len(weights)


def shift(random: Random, weights: list[float]) -> Iterator[tuple[float, int]]:
    """From time to time other models become those that are wanted."""
    weights = list(weights)
    summed, at = list(accumulate(weights)), 0.0
    while True:
        at += random.expovariate(1 / GAP_S)
        if random.random() < 1 / 1000:
            random.shuffle(weights)
            summed = list(accumulate(weights))
        yield at, random.choices(range(len(weights)), cum_weights=summed)[0]


EXPONENTS = {"zipf-0.8": 0.8, "zipf-1.0": 1.0, "zipf-1.2": 1.2}
GENERATORS: dict[str, Draw] = {
    "zipf-0.8": independent,
    "zipf-1.0": independent,
    "zipf-1.2": independent,
    "bursty": bursty,
    "diurnal": diurnal,
    "scan": scan,
    "loop": loop,
    "shift": shift,
}
ZIPF = tuple(EXPONENTS)
