"""Tells hosts how models share their device, whenever it changes who has work there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmos.syscalls.driver import HostSetBudget, HostSetShares

from .arbiter.shares import Demand, Division, divide
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
        link = self._kernel.supervisor.drivers[device].link
        if link is None:
            return
        before = self._told.get(device)
        if before is None or before.link is not link:
            before = Told(link, {}, {})
        shares, budget = division.shares or before.shares, division.budget
        if not budget:
            budget = {**before.budget, "device": 1.0} if before.budget else before.budget
        if (shares, budget) == (before.shares, before.budget):
            return
        if shares != before.shares:
            link.call(HostSetShares(shares=dict(shares)))
        if budget != before.budget:
            link.call(HostSetBudget(budget=dict(budget)))
        self._told[device] = Told(link, shares, budget)
        self._kernel.decide([device, *models], division.reason, "debug")
