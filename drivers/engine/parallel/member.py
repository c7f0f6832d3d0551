"""What another rank does, in its process.

It loads its share of each model as the host process does, call by call, so that both come to the same collectives in
the same order; then it computes the steps that it is told. It chooses no token and knows no request.
"""

from __future__ import annotations

import contextlib
import importlib
import threading
from multiprocessing import connection
from pathlib import Path

from llmos.syscalls.errors import LlmosError

from ...ops.table import OpTable
from .. import ladder
from ..memory import live_bytes, process_bytes, tensors_of
from ..paged import PagedModel
from ..place import Place
from ..prepare import collect, prepared
from ..shared import SharedModule
from . import coding, team
from .divided import RankPlace
from .messages import Beat, Broken, Drop, End, Failed, Go, Here, Join, Joined, Load, Meet, Order, Read, Said, Step
from .team import Team

BEAT_S = 1.0
MEASURED_BEATS = 10
"""How large the process is, is looked at with every tenth beat: the system walks all its pages for an answer."""


class Dropped(Exception):
    """The host process gave up a model while it was loaded."""


class Pipe:
    """This end of the socket pair, for the thread that works and the one that beats."""

    def __init__(self, fd: int) -> None:
        self._connection = connection.Connection(fd)
        self._sending = threading.Lock()

    def receive(self) -> Order:
        """The next order. Raises EOFError when the host process is gone."""
        return coding.order(self._connection.recv_bytes())

    def send(self, said: Said) -> None:
        with self._sending:
            self._connection.send_bytes(coding.encode(said))


class Rank:
    """The shares of models that are here, by their keys."""

    def __init__(self, pipe: Pipe, ops: OpTable, place: Place, joined: Team) -> None:
        self._pipe, self._ops, self._place, self._team = pipe, ops, place, joined
        self._models: dict[int, PagedModel] = {}

    def run(self) -> None:
        """Do what comes, until the end."""
        while not isinstance(order := self._pipe.receive(), End):
            if isinstance(order, Step):
                self._models[order.key].carry_out(order.prepared)
            elif isinstance(order, Load):
                self._load(order)
            elif isinstance(order, Drop) and order.key in self._models:
                self._models.pop(order.key).release()
                self._free()

    def _load(self, order: Load) -> None:
        try:
            model, held = self._share(order)
        except LlmosError as error:
            self._free()
            self._pipe.send(Failed(order.key, error.with_traceback(None)))
        except Dropped:
            self._free()
        else:
            self._models[order.key] = model
            self._pipe.send(Here(order.key, held))

    def _share(self, order: Load) -> tuple[PagedModel, int]:
        """A share on its pages, and the bytes of its weights."""
        place = RankPlace(self._place, self._team, lambda: self._together(order.key))
        bundle, trial = prepared(order.source, order.settings, self._ops, _silent, place=place)
        shared = SharedModule(bundle.module)
        held = live_bytes(tensors_of(bundle.module))
        rung = ladder.choose(bundle, shared, trial, self._ops, order.settings.rung, order.source.path)
        layers = ladder.shared_layers(rung, order.source.path)
        return ladder.paged_model(layers, order.pages, bundle, shared, self._ops, place), held

    def _together(self, key: int) -> None:
        """Wait until all have read. Raises Dropped when that is not to be."""
        self._pipe.send(Read(key))
        order = self._pipe.receive()
        if not isinstance(order, Go):
            raise Dropped

    def _free(self) -> None:
        collect()
        self._place.collect()


def _silent(done: int, total: int, unit: str = "bytes", stage: str = "") -> None:
    """Rank 0 reports progress for all."""


def _beat(pipe: Pipe, ended: threading.Event) -> None:
    beats, size = 0, 0
    while not ended.wait(BEAT_S):
        if beats % MEASURED_BEATS == 0:
            size = process_bytes()
        beats += 1
        try:
            pipe.send(Beat(size))
        except OSError:  # the main thread sees it, too
            return


class _Telling(contextlib.AbstractContextManager[None]):
    """Says to the host what escapes."""

    def __init__(self, pipe: Pipe) -> None:
        self._pipe = pipe

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if error is not None:
            with contextlib.suppress(OSError):  # the host process is gone
                self._pipe.send(Broken(f"{type(error).__name__}: {error}"))


def serve(fd: int) -> int:
    """Be a rank until the end; the exit status. `fd` is this end of the host's socket pair. What escapes is said."""
    pipe = Pipe(fd)
    ended = threading.Event()
    beating = threading.Thread(target=_beat, args=(pipe, ended), name="beat")
    beating.start()
    try:
        with _Telling(pipe):
            join = pipe.receive()
            if isinstance(join, Join):
                _work(pipe, join)
    except EOFError:  # the host process is gone
        return 1
    finally:
        ended.set()
        beating.join()
    return 0


def _work(pipe: Pipe, join: Join) -> None:
    module, _, function = join.parts.partition(":")
    ops, place = getattr(importlib.import_module(module), function)(join.name, join.threads, join.config, join.rank)
    pipe.send(Joined())
    meet = pipe.receive()
    if not isinstance(meet, Meet):
        return
    met = team.join(Path(meet.meeting), join.rank, join.ranks, place.device, meet.seconds)
    try:
        Rank(pipe, ops, place, met).run()
    finally:
        team.leave()
