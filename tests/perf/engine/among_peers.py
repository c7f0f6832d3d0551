"""Suites in which ours stands beside other engines: requests at once, random arrivals, prefill."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from peers.peer import Job, Room

from .arrivals import arrivals, prompt, prompts
from .cells import Cell, agreement, percentile, streams
from .crew import Crew, crew, say
from .limits import Rates, ideal_seconds, prefill_seconds
from .models import causal
from .options import Options
from .probe import Probe
from .process import known
from .shapes import SHAPES, Shape

LOAD = 1.3
"""Random arrivals ask for this much more than the machine could do at best: what counts is then the throughput."""

Found = tuple[list[Cell], dict[str, object]]


def among_peers(options: Options, model: str, probe: Probe) -> Found:
    """The suites that were asked for, with the same loaded peers; figures, and facts about the peers."""
    shape, sizes = SHAPES[model], options.sizes
    rows = max(sizes.concurrent)
    tokens = max(rows * (sizes.prompt + sizes.generate), 2 * sum(sizes.arriving_prompt) * rows, sizes.context)
    room = Room(min(sizes.context, shape.context), rows, tokens, options.threads, shape.bits)
    cells: list[Cell] = []
    names = [name for name in options.peers if known(name, shape.bits)]
    with crew(names, causal(options.folder, shape), shape, room) as peers:
        agrees = _warm_up(peers, options, shape)
        for name, suite in (("requests", requests), ("arrivals", random_arrivals), ("prefill", prefill)):
            if name in options.suites:
                cells += suite(options, shape, peers, probe)
        return cells, {"peers": peers.facts, "left out": peers.failures, "tokens as generate": agrees}


def _warm_up(peers: Crew, options: Options, shape: Shape) -> dict[str, int]:
    """Every shape of batch once; how many tokens each peer has in common with `generate`."""
    sizes, seen = options.sizes, {}
    for name in peers.names:
        for rows in sizes.concurrent:
            given = prompts(1, rows, sizes.prompt, shape.vocabulary)
            answers = peers.run(name, [Job(each, 8 if rows == 1 else 2) for each in given])
            if answers is not None and rows == sizes.concurrent[0]:
                seen[name] = answers[0].tokens
    return agreement(seen, "generate")


def _measured(
    suite: str, case: str, unit: str, options: Options, shape: Shape, peers: Crew, probe: Probe,
    jobs: Callable[[int], Sequence[Job]], ideal: Callable[[Rates], float],
) -> list[Cell]:  # fmt: skip
    """Rounds of one case, the peers in turn; tokens a second of whole runs."""
    cells = {name: Cell(suite, shape.name, case, name, unit, ideal=ideal) for name in peers.names}
    for round in range(options.rounds):
        probe.measure()
        given = jobs(round)
        for name in peers.turns(round):
            answers = peers.run(name, given)
            if answers is None:
                cells.pop(name, None)
                continue
            figures = streams(answers)
            waits = [answer.times[-1] - answer.submitted for answer in answers]
            cells[name].samples.append(figures.pop("total"))
            for key, value in {**figures, "p95 end": percentile(waits, 0.95)}.items():
                cells[name].more.setdefault(key, []).append(value)
        say(f"{suite} {shape.name} {case}: round {round + 1} of {options.rounds}")
    return list(cells.values())


def requests(options: Options, shape: Shape, peers: Crew, probe: Probe) -> list[Cell]:
    """So many requests at the same moment, all of the same lengths."""
    sizes, cells = options.sizes, []
    for rows in sizes.concurrent:

        def jobs(round: int, rows: int = rows) -> list[Job]:
            given = prompts(1000 * rows + round, rows, sizes.prompt, shape.vocabulary)
            return [Job(each, sizes.generate) for each in given]

        like = [Job(range(sizes.prompt), sizes.generate)] * rows
        ideal = partial(_rate, shape, like)
        cells += _measured("requests", str(rows), "tokens/s", options, shape, peers, probe, jobs, ideal)
    return cells


def random_arrivals(options: Options, shape: Shape, peers: Crew, probe: Probe) -> list[Cell]:
    """Requests that arrive at random with mixed lengths; the same times and lengths in each round, other tokens."""
    sizes = options.sizes
    bounds = (sizes.arriving_prompt, sizes.arriving_generate)
    together = arrivals(7, sizes.arriving, 1e9, *bounds, shape.vocabulary)
    per_second = LOAD * len(together) / ideal_seconds(shape, probe.rates, together)
    pattern = arrivals(7, sizes.arriving, per_second, *bounds, shape.vocabulary)

    def jobs(round: int) -> list[Job]:
        import random

        source = random.Random(100 + round)
        return [replace(job, prompt=prompt(source, len(job.prompt), shape.vocabulary)) for job in pattern]

    case, ideal = f"{len(pattern)} at {per_second:.2g} a second", partial(_rate, shape, pattern)
    return _measured("arrivals", case, "tokens/s", options, shape, peers, probe, jobs, ideal)


def prefill(options: Options, shape: Shape, peers: Crew, probe: Probe) -> list[Cell]:
    """Tokens of a prompt a second, until its first token is there."""
    cells = []
    for length in options.sizes.prefill:
        found = _measured(
            "prefill", str(length), "tokens/s", options, shape, peers, probe,
            lambda round, length=length: [Job(prompts(50 + round, 1, length, shape.vocabulary)[0], 1)],  # type: ignore[misc]
            lambda rates, length=length: length / prefill_seconds(shape, rates, length),  # type: ignore[misc]
        )  # fmt: skip
        for cell in found:
            cell.samples = [length * sample for sample in cell.samples]
            cell.more.clear()
        cells += found
    return cells


def _rate(shape: Shape, jobs: Sequence[Job], rates: Rates) -> float:
    return sum(job.new_tokens for job in jobs) / ideal_seconds(shape, rates, jobs)
