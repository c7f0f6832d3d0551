"""Each check of models and memory catches the violation it is for, and a sound device passes them all."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from llmos.drivers.conformance.device_checks import DEVICE_CHECKS
from llmos.drivers.contract import (
    ChunkEvent, DoneEvent, Facts, Leased, LoadedModel, LoadSettings, ModelSource, OpenedContext, ProgressSink, Request,
    Row, StepEvent,
)  # fmt: skip
from llmos.drivers.devices.null import NullDevice
from llmos.syscalls.errors import BadState, LlmosError, NotSupported


class WrongName(NullDevice):
    def facts(self) -> Facts:
        return replace(super().facts(), name="cuda0")


class NoMemory(NullDevice):
    def facts(self) -> Facts:
        return replace(super().facts(), memory_bytes=0)


class SilentSetting(NullDevice):
    config_keys: Mapping[str, str] = {"colour": ""}  # type: ignore[misc]


class NoPrediction(NullDevice):
    def step_seconds(self) -> float:
        return -1.0


class Chatty(NullDevice):
    def step(self) -> Sequence[StepEvent]:
        return list(super().step()) or [ChunkEvent("nobody", "hm", [])]


class PlanAllocates(NullDevice):
    def plan(self, source: ModelSource, settings: LoadSettings) -> Sequence[Row]:
        if "planned" not in self._models:
            self.load("planned", source, settings, lambda *_given: None)
        return super().plan(source, settings)


class PlanPromises(NullDevice):
    def plan(self, source: ModelSource, settings: LoadSettings) -> Sequence[Row]:
        return [replace(row, predicted=row.predicted * 9) for row in super().plan(source, settings)]


class NoProgress(NullDevice):
    def load(
        self, model: str, source: ModelSource, settings: LoadSettings, progress: ProgressSink, base: str = ""
    ) -> LoadedModel:
        return super().load(model, source, settings, lambda *_given: None, base)


class NoArchitecture(NullDevice):
    def _loaded(self, name: str) -> LoadedModel:
        return replace(super()._loaded(name), architecture="")


class OddRows(NullDevice):
    def memory(self) -> Sequence[Row]:
        return [replace(row, what="stuff") for row in super().memory()]


class NobodysRows(NullDevice):
    def memory(self) -> Sequence[Row]:
        return [replace(row, owner="somebody") for row in super().memory()]


class AnyDtype(NullDevice):
    def load(
        self, model: str, source: ModelSource, settings: LoadSettings, progress: ProgressSink, base: str = ""
    ) -> LoadedModel:
        return super().load(model, source, LoadSettings(), progress, base)


class BugOnEmpty(NullDevice):
    def load(
        self, model: str, source: ModelSource, settings: LoadSettings, progress: ProgressSink, base: str = ""
    ) -> LoadedModel:
        if model == "check-empty":
            raise IndexError("list index out of range")
        return super().load(model, source, settings, progress, base)


class PlainKeyError(NullDevice):
    def submit(self, request: Request) -> None:
        try:
            super().submit(request)
        except LlmosError as error:
            raise KeyError(request.model) from error


class Forgetful(NullDevice):
    def submit(self, request: Request) -> None:
        if request.context in self._contexts:
            self._contexts[request.context].ids.clear()
        super().submit(request)


class LeakyContexts(NullDevice):
    leaked = 0

    def drop_context(self, context: str) -> int:
        self.leaked = super().drop_context(context)
        return self.leaked

    def memory(self) -> Sequence[Row]:
        return [*super().memory(), Row("kv", "leak", self.leaked, self.leaked, self.leaked)]


class Insomniac(NullDevice):
    def sleep(self, model: str, host_bytes: int | None = None) -> LoadedModel:
        return self._loaded(model)


class LeavesLeases(NullDevice):
    def end_lease(self, lease: str) -> int:
        self._files._files[lease][0].rename(path := Path(f"{self._files._files[lease][0]}~"))
        size = super().end_lease(lease)
        path.rename(str(path)[:-1])
        return size


class NobodysLease(NullDevice):
    def memory(self) -> Sequence[Row]:
        return [row for row in super().memory() if row.what != "lease"]


class OpenLease(NullDevice):
    def lease(self, lease: str, bytes: int, path: str) -> Leased:
        given = super().lease(lease, bytes, path)
        Path(path).chmod(0o666)
        return given


class TellsAnything(NullDevice):
    def inspect(self, topic: str) -> Mapping[str, Any]:
        return {topic: "fine"}


class TellsObjects(NullDevice):
    def inspect(self, topic: str) -> Mapping[str, Any]:
        if topic != "ops":
            return super().inspect(topic)
        return {"add": object()}


class Leaky(NullDevice):
    leaked = 0

    def unload(self, model: str) -> int:
        freed = super().unload(model)
        self.leaked += freed
        return freed

    def memory(self) -> Sequence[Row]:
        return [*super().memory(), Row("weights", "leak", self.leaked, self.leaked, self.leaked)]


class SaysNothingFreed(NullDevice):
    def unload(self, model: str) -> int:
        super().unload(model)
        return 0


class EndsTwice(NullDevice):
    def unload(self, model: str) -> int:
        self.gone = [DoneEvent(request, "x") for request in self._jobs]
        return super().unload(model)

    def step(self) -> Sequence[StepEvent]:
        return [*super().step(), *getattr(self, "gone", ())]


class KeepsAll(NullDevice):
    def stop(self) -> None:
        """Forgets to."""


BROKEN: dict[type[NullDevice], str] = {
    WrongName: "facts", NoMemory: "facts", SilentSetting: "settings", NoPrediction: "prediction", Chatty: "idle",
    PlanAllocates: "plan", PlanPromises: "plan_matches_load", NoProgress: "load", NoArchitecture: "load",
    OddRows: "memory_rows", NobodysRows: "memory_rows", AnyDtype: "bad_settings", BugOnEmpty: "bad_model",
    PlainKeyError: "unknown_model", Forgetful: "conversations", LeakyContexts: "conversations", Insomniac: "sleeping",
    LeavesLeases: "leases", NobodysLease: "leases", OpenLease: "leases",
    TellsAnything: "telling", TellsObjects: "telling", Leaky: "unloading", SaysNothingFreed: "unloading",
    EndsTwice: "unload_ends_requests", KeepsAll: "stopping",
}  # fmt: skip


class GoneAfterStop(NullDevice):
    """Answers nothing once it is stopped."""

    stopped = False

    def stop(self) -> None:
        self.stopped = True

    def memory(self) -> Sequence[Row]:
        if self.stopped:
            raise BadState("stopped", state="stopped")
        return super().memory()


class Modest(NullDevice):
    """Offers neither sleep nor conversations, which is no failure."""

    def sleep(self, model: str, host_bytes: int | None = None) -> LoadedModel:
        raise NotSupported("no sleep", why="modest")

    def open_context(self, context: str, model: str, parent: str, max_tokens: int) -> OpenedContext:
        raise NotSupported("no conversations", why="modest")

    def lease(self, lease: str, bytes: int, path: str) -> Leased:
        raise NotSupported("no leases", why="modest")


@pytest.mark.parametrize("kind", [NullDevice, Modest, GoneAfterStop])
def test_a_sound_device_passes(device_bench: Callable[..., Any], failing: Any, kind: type[NullDevice]) -> None:
    assert failing(lambda: device_bench(kind), DEVICE_CHECKS) == {}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_device_is_caught(device_bench: Callable[..., Any], failing: Any, kind: type[NullDevice]) -> None:
    assert BROKEN[kind] in failing(lambda: device_bench(kind), DEVICE_CHECKS)


def test_every_check_says_what_it_checks() -> None:
    titles = [check.__doc__ for check in DEVICE_CHECKS]
    assert all(titles) and len(set(titles)) == len(titles)
