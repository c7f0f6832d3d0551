"""Tells hosts how models share their device, whenever it changes who has work there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmos.syscalls.driver import HostSetBudget, HostSetShares

from .arbiter.shares import CLASSES, Demand, Division, divide
from .link import Link
from .pending import Timer

if TYPE_CHECKING:
    from .core import Kernel

SOON_S = 0.02
"""Changes of so long are told together."""


@dataclass(frozen=True, slots=True)
class Told:
    """What a host was told last."""

    link: Link
    shares: Mapping[str, float]
    budget: Mapping[str, float]


class SharingService:
    """Decides nothing: `arbiter.shares` does."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._seen = 0
        self._timer: Timer | None = None
        self._told: dict[str, Told] = {}

    def look(self) -> None:
        """Something started or ended: divide anew, soon, if it changed who has work where."""
        if self._timer is None and self._kernel.scheduler.changes != self._seen:
            self._timer = self._kernel.runner.after(SOON_S, self._divide)

    def tuned(self, device: str) -> None:
        """A tuning job begins on a device: its host is told what lower classes keep of the time, and how long a slice
        of the job may be."""
        before, limits = self._before(device), self._kernel.config.limits
        if before is not None:
            parts = (1.0, limits.batch_share, limits.background_share)
            budget = {**dict(zip(CLASSES, parts, strict=True)), "device": 1.0, "slice_s": limits.tune_slice_s}
            self._send(device, before, before.shares, {**budget, **before.budget})

    def _divide(self) -> None:
        kernel, limits = self._kernel, self._kernel.config.limits
        self._timer, self._seen = None, kernel.scheduler.changes
        demands = [
            Demand(model.host_id, lane.device, model.driver.facts.unit, lane.demand())
            for lane in kernel.scheduler.busy()
            if (model := kernel.models.by_id.get(lane.name)) is not None and model.driver.facts is not None
        ]
        for device, division in divide(demands, (limits.batch_share, limits.background_share)).items():
            self._tell(device, division, [demand.model for demand in demands if demand.device == device])

    def _tell(self, device: str, division: Division, models: list[str]) -> None:
        """Send what is new to the host. One that cannot divide its time answers NotSupported, which changes nothing."""
        before = self._before(device)
        if before is None:
            return
        budget = {**before.budget, **division.budget}
        if not division.budget and budget:
            budget["device"] = 1.0
        if self._send(device, before, division.shares or before.shares, budget):
            self._kernel.decide([device, *models], division.reason, "debug")

    def _before(self, device: str) -> Told | None:
        """What a host was told last; None while there is none."""
        link = self._kernel.supervisor.drivers[device].link
        if link is None:
            return None
        before = self._told.get(device)
        return before if before is not None and before.link is link else Told(link, {}, {})

    def _send(self, device: str, before: Told, shares: Mapping[str, float], budget: Mapping[str, float]) -> bool:
        """Send what is new; whether anything is."""
        if shares != before.shares:
            before.link.call(HostSetShares(shares=dict(shares)))
        if budget != before.budget:
            before.link.call(HostSetBudget(budget=dict(budget)))
        self._told[device] = Told(before.link, shares, budget)
        return (shares, budget) != (before.shares, before.budget)
