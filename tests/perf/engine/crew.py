"""Peers that have loaded the same model, one process each; those that cannot are named and left out."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
from peers.peer import Answer, Job, Room

from .process import KINDS, PeerFailed, PeerProcess, started
from .shapes import Shape

ROOM = 1.25
"""Free memory that a peer must find, as a multiple of the weights; some hold them twice while they load."""


class Crew:
    """The peers of one model. One that fails in a run is left out from then on."""

    def __init__(self, peers: Mapping[str, PeerProcess]) -> None:
        self._peers = dict(peers)
        self.failures: dict[str, str] = {}

    @property
    def names(self) -> list[str]:
        return list(self._peers)

    @property
    def facts(self) -> dict[str, Any]:
        return {name: peer.facts for name, peer in self._peers.items()}

    def turns(self, round: int) -> list[str]:
        """The peers in the order of a round: another begins each time."""
        names = self.names
        cut = round % len(names) if names else 0
        return names[cut:] + names[:cut]

    def run(self, name: str, jobs: Sequence[Job], last: int | None = None) -> list[Answer] | None:
        """None when the peer has failed, now or before."""
        if name not in self._peers:
            return None
        try:
            answers = self._peers[name].run(jobs, last)
            _check(name, jobs, answers, last)
        except PeerFailed as error:
            say(f"{name} is left out: {error}")
            self.failures[name] = error.why
            self._peers.pop(name).close()
            return None
        return answers


@contextlib.contextmanager
def crew(names: Sequence[str], folder: Path, shape: Shape, room: Room) -> Iterator[Crew]:
    """The named peers with the model in a folder."""
    with contextlib.ExitStack() as stack:
        loaded: dict[str, PeerProcess] = {}
        failures: dict[str, str] = {}
        for name in names:
            try:
                loaded[name] = _load(stack, name, folder, shape, room)
            except PeerFailed as error:
                say(f"{name} is left out: {error}")
                failures[name] = error.why
        made = Crew(loaded)
        made.failures.update(failures)
        yield made


def _load(stack: contextlib.ExitStack, name: str, folder: Path, shape: Shape, room: Room) -> PeerProcess:
    free, needed = psutil.virtual_memory().available, int(ROOM * shape.bytes) + room.tokens * shape.token_bytes
    if free < needed:
        raise PeerFailed(f"{name} needs {needed / 1e9:.1f} GB of memory, {free / 1e9:.1f} are free")
    peer = stack.enter_context(started(KINDS[name], room.threads))
    peer.load(folder, room)
    say(f"{name}: {peer.facts}")
    return peer


def _check(name: str, jobs: Sequence[Job], answers: Sequence[Answer], last: int | None) -> None:
    """Raises PeerFailed unless every job has all its tokens; figures of less work would be too good."""
    for number, (job, answer) in enumerate(zip(jobs, answers, strict=True)):
        if len(answer.tokens) != job.new_tokens and last in (None, number):
            raise PeerFailed(f"{name} made {len(answer.tokens)} tokens of {job.new_tokens}")


def say(text: str) -> None:
    """What goes on, for people; the figures go to standard output."""
    print(text, file=sys.stderr, flush=True)
