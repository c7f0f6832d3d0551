"""The curve of a tuning run for programs that show curves, where they are installed: TensorBoard, Weights & Biases."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from llmos.syscalls.errors import BadState, NoSpace, NotSupported

HELD_OUT = "eval_"
"""How figures of held-out rows begin."""
BESIDE = frozenset({"step", "at", "done", "total", "unit", "stage", "fraction"})
"""What is told beside figures."""


class Sink(Protocol):
    """Takes the figures of one run."""

    place: str
    """Where they go, for people."""

    def write(self, step: int, values: Mapping[str, float], at: float) -> None:
        """Figures at a step, told at a time [s since 1970]. A smaller step than before: the run has gone back."""

    def close(self) -> None:
        """There are no more."""


Opener = Callable[[str, Mapping[str, Any]], Sink]
"""Opens a sink for a run, of which the id and the recipe are given."""


def wanted(tensorboard: str, wandb: str) -> list[Opener]:
    """Those that are asked for: a folder of TensorBoard's, a project of W&B's. Raises NotSupported: one is missing."""
    openers: list[Opener] = []
    for package, target, kind in (("tensorboard", tensorboard, TensorBoard), ("wandb", wandb, WeightsAndBiases)):
        if target:
            if find_spec(package) is None:
                why = f"{package} is not installed: pip install 'llmos[{package}]'"
                raise NotSupported(f"--{package}: {why}", why=why)
            openers.append(partial(kind, target))
    return openers


@contextmanager
def opened(openers: Sequence[Opener], run: str, recipe: Mapping[str, Any]) -> Iterator[list[Sink]]:
    """Open each for a run, and close them at the end. Raises what they raise."""
    with ExitStack() as stack:
        sinks = []
        for opener in openers:
            sink = opener(run, recipe)
            stack.callback(sink.close)
            sinks.append(sink)
        yield sinks


def follow(sinks: Sequence[Sink], told: Mapping[str, Any]) -> None:
    """Hand on what a task has just told. It tells the newest of all figures each time: only those of its stage are
    new, of steps or of held-out rows."""
    stage = told.get("stage")
    if stage in ("train", "evaluate"):
        held_out = stage == "evaluate"
        figures = {name: value for name, value in told.items() if name.startswith(HELD_OUT) == held_out}
        _write(sinks, int(told["done"]), figures, time.time())


def send(sinks: Sequence[Sink], run: Mapping[str, Any]) -> int:
    """Hand on the whole curve of a run from its record; how many points that are."""
    for point in run["curve"]:
        _write(sinks, int(point["step"]), point, float(point["at"]))
    return len(run["curve"])


def _write(sinks: Sequence[Sink], step: int, figures: Mapping[str, Any], at: float) -> None:
    values = {
        name: float(value) for name, value in figures.items()
        if name not in BESIDE and isinstance(value, int | float) and math.isfinite(value)
    }  # fmt: skip
    for sink in sinks if values else ():
        sink.write(step, values, at)


class TensorBoard:
    """Scalars in an event file of a folder for each run. Raises NoSpace: nothing can be written there."""

    def __init__(self, folder: str, run: str, recipe: Mapping[str, Any]) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._event, self._session, self._summary = Event, SessionLog, Summary
        self._last = math.inf
        self.place = str(Path(folder).expanduser() / run)
        with self._files():
            self._file = EventFileWriter(self.place, flush_secs=10)

    def write(self, step: int, values: Mapping[str, float], at: float) -> None:
        """Before the first figures, and when the run goes back, TensorBoard is told to forget what it has from there
        on: of the run itself before its interruption, or of the same run written before."""
        with self._files():
            if step < self._last:
                start = self._session(status=self._session.START)
                self._file.add_event(self._event(wall_time=at, step=step, session_log=start))
            self._last = step
            scalars = [self._summary.Value(tag=name, simple_value=value) for name, value in values.items()]
            self._file.add_event(self._event(wall_time=at, step=step, summary=self._summary(value=scalars)))

    def close(self) -> None:
        """All is in the file afterwards."""
        with self._files():
            self._file.close()

    @contextmanager
    def _files(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise NoSpace(f"{self.place}: {error.strerror or error}") from None


class WeightsAndBiases:
    """A run of a project, by the id of ours, with the recipe as its configuration; steps are a figure like the others,
    since a run may go back. Whether it goes to a server or to files is up to `WANDB_MODE`.

    Raises:
        BadState: it cannot be begun, for instance because nobody has logged in.
    """

    def __init__(self, project: str, run: str, recipe: Mapping[str, Any]) -> None:
        import wandb

        settings = wandb.Settings(console="off", silent=True)
        try:
            self._run = wandb.init(
                project=project, id=run, name=run, resume="allow", config=dict(recipe), settings=settings
            )
        except wandb.Error as error:
            text = f"Weights & Biases: {error}; run `wandb login`, or set WANDB_MODE=offline"
            raise BadState(text, state="closed") from None
        self._run.define_metric("*", step_metric="step")
        self.place = str(self._run.url or self._run.dir)

    def write(self, step: int, values: Mapping[str, float], at: float) -> None:
        """A row of its history."""
        self._run.log({**values, "step": step, "at": at})

    def close(self) -> None:
        """All is sent, or in files, afterwards."""
        self._run.finish()
