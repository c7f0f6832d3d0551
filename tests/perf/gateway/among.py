"""The gateway beside the HTTP servers of other engines, on the same weights and the same machine.

Chats as streams, all begun at the same moment, greedy, always of the same lengths: the weights are random, so nothing
ends early. Servers that are not installed are named and left out.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

from engine.crew import say
from engine.models import causal
from engine.shapes import SHAPES
from measure import Row

from .ours import ours
from .servers import KINDS, NotServed, served, text_folder
from .wire import Refused, Target, rate, stream

OURS = "ours"
SERVERS = (OURS, *KINDS)


@dataclass(frozen=True)
class Plan:
    """How much to measure. Lengths in tokens: a byte of a prompt is one."""

    folder: Path
    model: str = "0.5b"
    servers: tuple[str, ...] = SERVERS
    at_once: tuple[int, ...] = (1, 8, 32)
    prompt: int = 128
    generate: int = 64
    rounds: int = 3
    threads: int = 2
    asks: int = 400
    """Short requests in each measurement of their rate."""


Awake = Callable[[], AbstractContextManager[Target]]


@dataclass
class Figures:
    """What one server showed: by how many streams at once, seconds to the first token and tokens a second."""

    first: dict[int, list[float]] = field(default_factory=dict)
    tokens: dict[int, list[float]] = field(default_factory=dict)
    health: list[float] = field(default_factory=list)


def rows(plan: Plan) -> list[Row]:
    """All figures; ours beside each peer."""
    weights = text_folder(causal(plan.folder, SHAPES[plan.model]))
    found: dict[str, Figures] = {}
    with contextlib.ExitStack() as stack:
        servers = dict(_started(stack, plan, weights))
        for name, awake in list(servers.items()):
            with awake() as target:
                try:
                    asyncio.run(_wave(target, plan, 1, 8))
                except (Refused, OSError) as error:
                    say(f"{name} is left out: {error}")
                    del servers[name]
        for turn in range(plan.rounds):
            for name, (awake, health) in ((n, (a, _health(n))) for n, a in servers.items()):
                figures = found.setdefault(name, Figures())
                with awake() as target:
                    for at_once in plan.at_once:
                        first, tokens = asyncio.run(_wave(target, plan, at_once, plan.generate, turn))
                        figures.first.setdefault(at_once, []).append(first)
                        figures.tokens.setdefault(at_once, []).append(tokens)
                    figures.health.append(asyncio.run(rate(target.port, target.request("GET", health), 8, plan.asks)))
                say(f"round {turn + 1} of {plan.rounds}: {name}")
    return list(_table(plan, found))


def _health(name: str) -> str:
    return KINDS[name].health if name in KINDS else "/health"


def embeddings(plan: Plan) -> list[Row]:
    """Embeddings of short texts a second, through 8 connections, where a server has them."""
    weights = text_folder(causal(plan.folder, SHAPES[plan.model]))
    found: dict[str, list[float]] = {}
    with contextlib.ExitStack() as stack:
        servers = dict(_started(stack, plan, weights, embed=True))
        for turn in range(plan.rounds + 1):  # the first one warms up
            for name, awake in list(servers.items()):
                with awake() as target:
                    body = {"model": target.model, "input": "x" * 32}
                    request = target.request("POST", "/v1/embeddings", body)
                    try:
                        figure = asyncio.run(rate(target.port, request, 8, plan.asks // 4))
                    except (Refused, OSError) as error:
                        say(f"{name} is left out: {error}")
                        del servers[name]
                        continue
                if turn:
                    found.setdefault(name, []).append(figure)
    what, mine = "embeddings of 32 tokens, 8 connections", found.get(OURS, [])
    peers = {name: figures for name, figures in found.items() if name != OURS or len(found) == 1}
    return [_row(what, "/s", mine or figures, figures, f"peer: {name}", name) for name, figures in peers.items()]


def _started(
    stack: contextlib.ExitStack, plan: Plan, folder: Path, *, embed: bool = False
) -> Iterator[tuple[str, Awake]]:
    for name in plan.servers:
        try:
            if name == OURS:
                config = f"[drivers.cpu0]\nthreads = {plan.threads}\n"
                made = stack.enter_context(ours(folder, "text", "cpu0,models", config))
                yield name, lambda made=made: contextlib.nullcontext(made.target)
            else:
                peer = stack.enter_context(served(name, folder, plan.threads, embed=embed))
                yield name, peer.awake
            say(f"{name} is ready")
        except NotServed as error:
            say(f"{name} is left out: {error}")


async def _wave(target: Target, plan: Plan, at_once: int, generate: int, seed: int = 0) -> tuple[float, float]:
    """Streams begun together: the median of their first tokens, and tokens a second of all. Raises Refused."""
    draw = random.Random(f"{seed} {at_once}")
    texts = ["".join(draw.choices("abcdefgh", k=plan.prompt)) for _ in range(at_once)]
    began = time.perf_counter()
    told = await asyncio.gather(*(stream(target.port, target.chat(text, generate)) for text in texts))
    seconds = time.perf_counter() - began
    if not all(each.first for each in told):
        raise Refused(f"{target.name} gave a stream without text")
    return statistics.median(each.first for each in told), at_once * generate / seconds


def _table(plan: Plan, found: dict[str, Figures]) -> Iterator[Row]:
    mine = found.get(OURS)
    for name, figures in found.items():
        if name == OURS and len(found) > 1:
            continue
        base, note = mine or figures, "" if name == OURS else f"peer: {name}"
        for at_once in plan.at_once:
            for what, unit, ours_, theirs in (
                ("time to the first token", "s", base.first, figures.first),
                ("tokens a second", "/s", base.tokens, figures.tokens),
            ):
                yield _row(f"{what}, {at_once} at once", unit, ours_[at_once], theirs[at_once], note, name)
        yield _row("/health, 8 connections", "/s", base.health, figures.health, note, name)


def _row(what: str, unit: str, mine: list[float], theirs: list[float], note: str, name: str) -> Row:
    ours_, peer = statistics.median(mine), statistics.median(theirs)
    if name == OURS:
        return Row(what, ours_, None, unit, None, "", None, note)
    return Row(what, ours_, peer, unit, ours_ / peer, "", None, note)
