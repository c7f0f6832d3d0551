"""Each check of how time is divided catches the violation it is for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from llmos.drivers.conformance.time_checks import TIME_CHECKS
from llmos.drivers.contract import Device, Facts, Request, StepEvent, Usage
from llmos.drivers.devices.null import NullDevice
from llmos.syscalls.errors import BadArgument


class Frozen(NullDevice):
    def usage(self) -> Mapping[str, Usage]:
        return {name: Usage(1, 1) for name in self._jobs}


class Hoarding(NullDevice):
    """Tells of requests that have ended."""

    seen: Mapping[str, Usage] = {}

    def usage(self) -> Mapping[str, Usage]:
        self.seen = {**self.seen, **super().usage()}
        return self.seen


class Exaggerating(NullDevice):
    def usage(self) -> Mapping[str, Usage]:
        more = self._steps * 10**12
        return {name: Usage(used.device_ns + more, used.tokens) for name, used in super().usage().items()}


class Picky(NullDevice):
    def set_shares(self, shares: Mapping[str, float]) -> None:
        for name in shares:
            if name not in self._models:
                raise BadArgument(f"no model {name}", name="shares", got=name)


class Starving(NullDevice):
    def set_budget(self, budget: Mapping[str, float]) -> None:
        if "batch" in budget and budget["background"] == 0.0:
            raise BadArgument("no class has nothing", name="budget", got="0")


class Forgiving(NullDevice):
    def preempt(self, request: str) -> None:
        """Takes any name."""


class Restarting(NullDevice):
    """Loses what a request had."""

    def preempt(self, request: str) -> None:
        super().preempt(request)
        job = self._jobs[request]
        assert job.echo is not None
        job.echo._tokens.append(7)


class FirstComeFirst(NullDevice):
    """Parks whoever comes last."""

    def submit(self, request: Request) -> None:
        super().submit(replace(request, work_class="interactive"))


class Losing(NullDevice):
    """Ends what it parks."""

    def step(self) -> Sequence[StepEvent]:
        if len(self._jobs) > 8:
            lower = [name for name, job in self._jobs.items() if job.request.work_class == "batch"]
            self._jobs[lower[-1]].cancelled = True
        return super().step()


BROKEN = {
    Frozen: "usage", Hoarding: "usage", Exaggerating: "usage", Picky: "shares", Starving: "budget",
    Forgiving: "preempted", Restarting: "preempted", FirstComeFirst: "parked", Losing: "parked",
}  # fmt: skip


@pytest.mark.parametrize("kind", BROKEN, ids=lambda kind: kind.__name__)
def test_a_broken_device_is_caught(device_bench: Callable[..., Any], failing: Any, kind: type[NullDevice]) -> None:
    assert BROKEN[kind] in failing(lambda: device_bench(kind), TIME_CHECKS)


def test_each_check_catches_something() -> None:
    assert {check.__name__ for check in TIME_CHECKS} == set(BROKEN.values())


class Plain(NullDevice):
    """Divides its time by its own rules."""

    set_shares, set_budget, preempt, usage = Device.set_shares, Device.set_budget, Device.preempt, Device.usage

    def facts(self) -> Facts:
        return replace(super().facts(), features={})


@pytest.mark.parametrize("kind", [NullDevice, Plain])
def test_what_is_allowed_passes(device_bench: Callable[..., Any], failing: Any, kind: type[NullDevice]) -> None:
    assert failing(lambda: device_bench(kind), TIME_CHECKS) == {}
