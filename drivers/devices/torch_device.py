"""What devices that run models of transformers with torch have in common: all but where the models live.

torch and transformers are imported when the device starts, not when this module is: finding drivers stays quick.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from llmos.syscalls.errors import BadArgument, BadState, Exists, LlmosError

from .. import plugins
from ..contract import (
    Leased, LoadedModel, LoadSettings, ModelSource, OpenedContext, ProgressSink, Request, Row, StepEvent, TuneEvent,
    TuneJob, TunePlan, Usage,
)  # fmt: skip
from ..ops.table import OpTable
from .figures import Figures, shared_out
from .shared_files import SharedFiles
from .tuning import TuningDevice

if TYPE_CHECKING:
    from ..engine.engine import Engine
    from ..engine.parallel.ranks import Ranks
    from ..engine.place import Place
    from ..engine.plugged import Architectures

PREFILL_TOKENS = 512
CACHE_VARIABLE = "TORCHINDUCTOR_CACHE_DIR"
FEATURES: Mapping[str, int] = {"adapters": 1, "contexts": 1, "parks": 1, "parts": 1, "tensors": 1, "tunes": 1}
"""What the engine can do on any device."""


class Leases(Protocol):
    """Bytes that were given to other programs."""

    def give(self, lease: str, size: int, path: str) -> Leased: ...
    def end(self, lease: str) -> int: ...
    def rows(self) -> Sequence[Row]: ...
    def close(self) -> None: ...


class TorchDevice(TuningDevice):
    """An engine on some device of torch."""

    kind: ClassVar[str]
    prefill_tokens: ClassVar[int] = PREFILL_TOKENS
    """Where the configuration names none."""
    pooled: ClassVar[bool] = False
    """Whether its memory is the host's."""
    place: Place
    """Where its models live, once it has started."""
    config_keys: ClassVar[Mapping[str, str]] = {
        "prefill_tokens": f"tokens of a prompt that go through a model in one step; {PREFILL_TOKENS} by default",
    }

    def __init__(self) -> None:
        super().__init__()
        self.ops = OpTable()
        self._device = self.name
        self._engine: Engine | None = None
        self._ranks: Ranks | None = None
        self._leases: Leases = SharedFiles()

    def start(self, name: str, threads: int, config: Mapping[str, Any]) -> None:
        """Import torch and transformers, and never let them reach for a network."""
        prefill_tokens = count(config, "prefill_tokens", self.prefill_tokens)
        self._device = name
        self._find(config)
        os.environ["HF_HUB_OFFLINE"] = "1"
        with no_compiler_cache():
            import torch
            import transformers

            from ..engine.engine import Engine
            from ..ops.reference import register_reference

        transformers.utils.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
        transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        threads = max(1, threads // self._processes(config))
        torch.set_num_threads(threads)
        register_reference(self.ops)
        self._register_own()
        self._register_ops()
        self.place = self._place(threads, config)
        self._engine = Engine(self.ops, prefill_tokens, self._own_models(), self.place)

    def _find(self, config: Mapping[str, Any]) -> None:
        """Look for the hardware before anything large is imported. Raises NotFound, BadArgument."""

    def _processes(self, config: Mapping[str, Any]) -> int:
        """How many share the threads. Raises BadArgument."""
        return 1

    @abstractmethod
    def _register_own(self) -> None:
        """Add the device's own ops."""

    @abstractmethod
    def _place(self, threads: int, config: Mapping[str, Any]) -> Place:
        """Where the models are to live."""

    def _watched(self) -> AbstractContextManager[None]:
        """Around all that may run on the device."""
        return nullcontext()

    def _changing(self) -> None:
        """What is held is about to change."""

    def _register_ops(self) -> None:
        """Add the ops of other packages; what cannot be used is reported and left out."""
        operations, failures = plugins.load_ops()
        for operation in operations:
            try:
                self.ops.register(operation.op, operation.name, operation.run, operation.supports)
            except LlmosError as error:
                failures.append(error)
        for failure in failures:
            print(f"{self._device}: {failure}", file=sys.stderr)

    def _own_models(self) -> Architectures:
        """Classes of models that other packages bring; what cannot be used is reported and left out."""
        from ..engine.plugged import Architecture

        found, failures = plugins.load_models()
        own: dict[str, Architecture] = {}
        for each in found:
            if each.architecture in own:
                failures.append(Exists(f"two packages bring a model class {each.architecture}: the first is used"))
            own.setdefault(each.architecture, Architecture(each.architecture, each.build, each.batched))
        for failure in failures:
            print(f"{self._device}: {failure}", file=sys.stderr)
        return own

    def stop(self) -> None:
        self._leases.close()
        self.stop_tunings()
        if self._engine is not None:
            self._engine.close()
            self._engine = None
        if self._ranks is not None:
            self._ranks.stop()
            self._ranks = None

    def plan(self, source: ModelSource, settings: LoadSettings) -> Sequence[Row]:
        return self._running().plan(source, settings)

    def prepare(self, progress: ProgressSink) -> None:
        """Compile what is not compiled yet."""

    def load(
        self, model: str, source: ModelSource, settings: LoadSettings, progress: ProgressSink, base: str = ""
    ) -> LoadedModel:
        self._changing()
        with self._watched():
            self.prepare(progress)
            return self._running().load(model, source, settings, progress, base)

    def unload(self, model: str) -> int:
        self._changing()
        with self._watched():
            self.end_tunings(model)
            return self._running().unload(model)

    def sleep(self, model: str, host_bytes: int | None = None) -> LoadedModel:
        self.check_untuned(model)
        self._changing()
        with self._watched():
            return self._running().sleep(model, host_bytes)

    def wake(self, model: str, progress: ProgressSink) -> LoadedModel:
        self._changing()
        with self._watched():
            return self._running().wake(model, progress)

    def open_context(self, context: str, model: str, parent: str, max_tokens: int) -> OpenedContext:
        return self._running().open_context(context, model, parent, max_tokens)

    def drop_context(self, context: str) -> int:
        return self._running().drop_context(context)

    def submit(self, request: Request) -> None:
        with self._watched():
            self._running().submit(request)

    def cancel(self, request: str) -> None:
        self._running().cancel(request)
        self.cancel_tune(request)

    def step(self) -> Sequence[StepEvent | TuneEvent]:
        with self._watched():
            return [*self.tunings_ended(), *self._running().step()]

    def plan_tune(self, job: TuneJob) -> None:
        with self._watched():
            super().plan_tune(job)

    def tune(self, job: TuneJob) -> TunePlan:
        self._changing()
        with self._watched():
            return super().tune(job)

    def usage(self) -> Mapping[str, Usage]:
        return self._running().usage()

    def set_shares(self, shares: Mapping[str, float]) -> None:
        self._running().set_shares(shares)

    def set_budget(self, budget: Mapping[str, float]) -> None:
        self._running().set_budget(budget)

    def preempt(self, request: str) -> None:
        self._running().preempt(request)

    def step_seconds(self) -> float:
        return self._running().step_seconds()

    def memory(self) -> Sequence[Row]:
        """The engine's rows, and one of what the device holds for no model; see `figures`."""
        rows = [*self._running().memory(), *self.tuning_rows()]
        shared = shared_out(rows, self._held(), self._absent(), self._device, self.pooled)
        return [*shared, *self._leases.rows()]

    def lease(self, lease: str, bytes: int, path: str) -> Leased:
        with self._watched():
            return self._leases.give(lease, bytes, path)

    def end_lease(self, lease: str) -> int:
        with self._watched():
            return self._leases.end(lease)

    @abstractmethod
    def _held(self) -> int:
        """Bytes of the device that this process has taken since it started, as the system or the hardware counts."""

    def _absent(self) -> Figures:
        """What is not there of the bytes that the engine has asked for."""
        return {}

    def cache_usage(self) -> Mapping[str, float]:
        return self._running().cache_usage()

    def inspect(self, topic: str) -> Mapping[str, Any]:
        self._running()
        if topic != "ops":
            return super().inspect(topic)
        from ..ops.catalog import serving

        return serving(self.ops, self.kind)

    def _running(self) -> Engine:
        if self._engine is None:
            raise BadState(f"the device {self._device} is not started", state="stopped")
        return self._engine


def count(config: Mapping[str, Any], name: str, default: int) -> int:
    """A setting that is a number of things. Raises BadArgument."""
    value = config.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        want = "an integer of 1 or more"
        raise BadArgument(f"{name} is {value!r}; expected {want}", name=name, got=repr(value), want=want)
    return value


@contextlib.contextmanager
def no_compiler_cache() -> Iterator[None]:
    """Importing torch's compiler makes a cache folder; this one exists already, so that nothing stays behind."""
    if CACHE_VARIABLE in os.environ:
        yield
        return
    os.environ[CACHE_VARIABLE] = tempfile.gettempdir()
    yield
    del os.environ[CACHE_VARIABLE]
