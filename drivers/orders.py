"""What the kernel decides about a device's time, as data: shares of models, budgets of classes, who lets others go."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from llmos.syscalls.driver import HostPreempt, HostSetBudget, HostSetShares
from llmos.syscalls.errors import BadArgument, NotFound
from llmos.syscalls.types import Done

from . import contract
from .held import Held
from .pacing import Pacing

DEVICE = "device"
"""The key of a budget that is about the device as a whole."""
PARTS = ("interactive", "batch", "background", DEVICE)
RECOMPUTE = "recompute_tokens"


class Orders:
    """Carries them out on a device. `models` and `runs` tell what it has now."""

    def __init__(
        self, device: contract.Device, models: Callable[[], Iterable[tuple[str, Held]]], runs: Callable[[str], bool]
    ) -> None:
        self.pacing = Pacing()
        self._device, self._models, self._runs = device, models, runs

    def set_shares(self, _number: int, call: HostSetShares) -> Done:
        """Raises BadArgument, NotSupported. A version that is being replaced has the share of its model."""
        for name, share in call.shares.items():
            _check("shares", name, share, 1.0)
        self._device.set_shares({held.key: call.shares[id] for id, held in self._models() if id in call.shares})
        return Done()

    def set_budget(self, _number: int, call: HostSetBudget) -> Done:
        """Raises BadArgument, NotSupported; the device as a whole keeps to its part also where it knows no classes."""
        unknown = sorted(call.budget.keys() - {*PARTS, RECOMPUTE})
        if unknown:
            want = ", ".join([*PARTS, RECOMPUTE])
            text = f"budget has no {unknown[0]!r}; known are {want}"
            raise BadArgument(text, name="budget", got=unknown[0], want=want)
        for name, value in call.budget.items():
            _check("budget", name, value, math.inf if name == RECOMPUTE else 1.0)
        part = call.budget.get(DEVICE, 1.0)
        if part == 0.0:
            want = "a part above 0"
            text = f"budget.device is 0, so nothing would run; expected {want}"
            raise BadArgument(text, name="budget", got="0", want=want)
        self.pacing.set(part)
        self._device.set_budget({name: value for name, value in call.budget.items() if name != DEVICE})
        return Done()

    def preempt(self, _number: int, call: HostPreempt) -> Done:
        """Raises NotFound, NotSupported."""
        if not self._runs(call.id):
            raise NotFound(f"no request {call.id} runs here")
        self._device.preempt(call.id)
        return Done()


def _check(what: str, name: str, value: float, most: float) -> None:
    if not 0.0 <= value <= most:
        want = "0 or more" if math.isinf(most) else f"0 to {most:g}"
        raise BadArgument(f"{what}.{name} is {value}; expected {want}", name=what, got=str(value), want=want)
