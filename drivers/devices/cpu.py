"""The CPU as a device: any Hugging Face language model or encoder that transformers knows, in plain torch.

torch and transformers are imported when the device starts, not when this module is: finding drivers stays quick.
"""

from __future__ import annotations

import contextlib
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from llmos.syscalls.errors import BadArgument, BadState, Exists, LlmosError

from .. import plugins
from ..contract import (
    Device, DeviceFactory, Facts, LoadedModel, LoadSettings, ModelSource, OpenedContext, ProgressSink, Request, Row,
    StepEvent,
)  # fmt: skip
from ..hookspecs import hookimpl
from ..ops.table import OpTable

if TYPE_CHECKING:
    from ..engine.engine import Engine
    from ..ops.cpu.native import Native
    from ..engine.plugged import Architectures

NAME = "cpu0"
PREFILL_TOKENS = 512
CPU_INFO = Path("/proc/cpuinfo")
CACHE_VARIABLE = "TORCHINDUCTOR_CACHE_DIR"
SAMPLE_S = 10.0
"""Seconds between two looks at the process's size: the system walks all its pages for an answer."""


@hookimpl
def register_devices(register: Callable[[str, DeviceFactory], None]) -> None:
    register(NAME, CpuDevice)


class CpuDevice(Device):
    """One device for all cores; its memory is the machine's."""

    name: ClassVar[str] = NAME
    config_keys: ClassVar[Mapping[str, str]] = {
        "prefill_tokens": f"tokens of a prompt that go through a model in one step; {PREFILL_TOKENS} by default",
    }

    def __init__(self) -> None:
        self.ops = OpTable()
        self._device = NAME
        self._engine: Engine | None = None
        self._native: Native | None = None
        self._empty_bytes = 0
        self._sampled_at = float("-inf")
        self._sampled_bytes = 0

    def start(self, name: str, threads: int, config: Mapping[str, Any]) -> None:
        """Import torch and transformers, and never let them reach for a network."""
        prefill_tokens = config.get("prefill_tokens", PREFILL_TOKENS)
        if not isinstance(prefill_tokens, int) or prefill_tokens < 1:
            said = f"prefill_tokens is {prefill_tokens!r}; expected an integer of 1 or more"
            raise BadArgument(said, name="prefill_tokens", got=repr(prefill_tokens), want="an integer of 1 or more")
        os.environ["HF_HUB_OFFLINE"] = "1"
        with _no_compiler_cache():
            import torch
            import transformers

            from ..engine.engine import Engine
            from ..engine.memory import process_bytes
            from ..ops.cpu.ops import register_native
            from ..ops.reference import register_reference

        transformers.utils.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
        transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        torch.set_num_threads(max(1, threads))
        self._device = name
        register_reference(self.ops)
        self._native = register_native(self.ops)
        self._register_ops()
        self._engine = Engine(self.ops, prefill_tokens, self._own_models())
        self._empty_bytes = process_bytes()

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
        if self._engine is not None:
            self._engine.close()
            self._engine = None

    def facts(self) -> Facts:
        import torch

        from ..engine.memory import free_bytes, machine_bytes, process_bytes

        total = machine_bytes()
        foreign = max(0, total - free_bytes() - process_bytes())
        features: dict[str, float | int | str] = {
            "cores": os.cpu_count() or 1,
            "threads": torch.get_num_threads(),
            "instructions": torch.backends.cpu.get_cpu_capability(),
            "adapters": 1,
            "contexts": 1,
            "parts": 1,
            "tensors": 1,
        }
        return Facts(self._device, "cpu", total, foreign, _processor(), features)

    def plan(self, source: ModelSource, settings: LoadSettings) -> Sequence[Row]:
        return self._running().plan(source, settings)

    def load(
        self, model: str, source: ModelSource, settings: LoadSettings, progress: ProgressSink, base: str = ""
    ) -> LoadedModel:
        self._sampled_at = float("-inf")
        if self._native is not None:
            self._native.prepare(lambda: progress(0, 0, "", "compile"))
        return self._running().load(model, source, settings, progress, base)

    def unload(self, model: str) -> int:
        self._sampled_at = float("-inf")
        return self._running().unload(model)

    def sleep(self, model: str) -> LoadedModel:
        self._sampled_at = float("-inf")
        return self._running().sleep(model)

    def wake(self, model: str, progress: ProgressSink) -> LoadedModel:
        self._sampled_at = float("-inf")
        return self._running().wake(model, progress)

    def open_context(self, context: str, model: str, parent: str, max_tokens: int) -> OpenedContext:
        return self._running().open_context(context, model, parent, max_tokens)

    def drop_context(self, context: str) -> int:
        return self._running().drop_context(context)

    def submit(self, request: Request) -> None:
        self._running().submit(request)

    def cancel(self, request: str) -> None:
        self._running().cancel(request)

    def step(self) -> Sequence[StepEvent]:
        return self._running().step()

    def step_seconds(self) -> float:
        return self._running().step_seconds()

    def memory(self) -> Sequence[Row]:
        """The engine's rows, and one whose `driver` figure is what the process has grown by since it was empty."""
        from ..engine.memory import process_bytes

        if time.monotonic() - self._sampled_at >= SAMPLE_S:
            self._sampled_at = time.monotonic()
            self._sampled_bytes = max(0, process_bytes() - self._empty_bytes)
        return [*self._running().memory(), Row("workspace", self._device, driver=self._sampled_bytes)]

    def cache_usage(self) -> Mapping[str, float]:
        return self._running().cache_usage()

    def inspect(self, topic: str) -> Mapping[str, Any]:
        self._running()
        if topic != "ops":
            return super().inspect(topic)
        from ..ops.catalog import serving

        return serving(self.ops, "cpu")

    def _running(self) -> Engine:
        if self._engine is None:
            raise BadState(f"the device {self._device} is not started", state="stopped")
        return self._engine


@contextlib.contextmanager
def _no_compiler_cache() -> Iterator[None]:
    """Importing torch's compiler makes a cache folder; this one exists already, so that nothing stays behind."""
    if CACHE_VARIABLE in os.environ:
        yield
        return
    os.environ[CACHE_VARIABLE] = tempfile.gettempdir()
    yield
    del os.environ[CACHE_VARIABLE]


def _processor() -> str:
    """The processor's name, where the system tells it."""
    try:
        lines = CPU_INFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.machine()
    fields = (line.partition(":") for line in lines)
    return next((value.strip() for key, _, value in fields if key.strip() == "model name"), platform.machine())
