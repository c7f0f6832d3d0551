"""How models share a device, and hosts the unit that they have in common, as data that the engine enforces.

The share of a model is the weight of the users who have work on it, of all weight on its device; a user with work on
several models divides his. A lower work class runs when no higher one wants to, and has a stated minimum so that it
never stands still; hosts on one unit divide it in the same way. Pure: who wants what goes in, numbers come out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from llmos.syscalls.types import Number, Reason

CLASSES = ("interactive", "batch", "background")
DIGITS = 3


@dataclass(frozen=True, slots=True)
class Demand:
    """What one model has to do: by work class the users who have requests there, with their weights."""

    model: str
    """Its weights, as its host knows them."""
    device: str
    unit: str
    """What the device is a part of; devices of one unit share its time."""
    users: Sequence[Mapping[str, int]]

    @property
    def best(self) -> int:
        """The highest class with work."""
        return next(rank for rank, users in enumerate(self.users) if users)


@dataclass(frozen=True, slots=True)
class Division:
    """What one host is told."""

    shares: Mapping[str, float]
    """By weights; empty when fewer than two models have work, so that there is nothing to divide."""
    budget: Mapping[str, float]
    """By work class the part of the time that is its own while others want it, and that of the whole `device` in its
    unit; empty when one class on one device has all."""
    reason: Reason


def divide(demands: Sequence[Demand], minima: Sequence[float]) -> dict[str, Division]:
    """The division of each device with work, by device. `minima` are the parts of batch and background work."""
    devices: dict[str, list[Demand]] = {}
    units: dict[str, list[str]] = {}
    for one in demands:
        if one.device not in devices:
            units.setdefault(one.unit or one.device, []).append(one.device)
        devices.setdefault(one.device, []).append(one)
    of_device: dict[str, float] = {}
    for names in units.values():
        of_device |= _of_unit({name: devices[name] for name in names}, minima)
    return {name: _division(name, each, of_device[name], minima) for name, each in devices.items()}


def _of_unit(devices: Mapping[str, Sequence[Demand]], minima: Sequence[float]) -> dict[str, float]:
    """The part of a unit that each of its devices may use: a device with lower work alone has that class's minimum."""
    bests = {name: min(demand.best for demand in demands) for name, demands in devices.items()}
    best = min(bests.values())
    lower = {name: minima[rank - 1] for name, rank in bests.items() if rank > best}
    rest = max(0.0, 1.0 - sum(lower.values()))
    upper = {name: demands for name, demands in devices.items() if name not in lower}
    weights = _weights([demand for demands in upper.values() for demand in demands], best)
    total = sum(weights.values())
    parts = {name: sum(weights[demand.model] for demand in demands) / total for name, demands in upper.items()}
    return lower | {name: rest * part for name, part in parts.items()}


def _weights(demands: Sequence[Demand], rank: int | None = None) -> dict[str, float]:
    """The weight of each model: its users' weights, each divided by the number of models on which he has work."""
    users = [_users(demand, rank) for demand in demands]
    count = Counter(user for mine in users for user in mine)
    return {
        demand.model: sum(weight / count[user] for user, weight in mine.items())
        for demand, mine in zip(demands, users, strict=True)
    }


def _users(demand: Demand, rank: int | None) -> dict[str, int]:
    chosen = demand.users if rank is None else [demand.users[rank]]
    return {user: weight for users in chosen for user, weight in users.items()}


def _division(device: str, demands: Sequence[Demand], of_unit: float, minima: Sequence[float]) -> Division:
    weights = _weights(demands)
    total = sum(weights.values())
    shares = {model: round(weight / total, DIGITS) for model, weight in weights.items()} if len(demands) > 1 else {}
    classes = {rank for demand in demands for rank, users in enumerate(demand.users) if users}
    of_unit = round(of_unit, DIGITS)
    budget = dict(zip(CLASSES, (1.0, *minima), strict=True)) | {"device": of_unit}
    if len(classes) == 1 and of_unit == 1:
        budget = {}
    users = {user for demand in demands for user in _users(demand, None)}
    said = [f"{len(demands)} models of {len(users)} users have work on {device}"]
    if shares:
        said.append("shares " + ", ".join(f"{model} {share:g}" for model, share in shares.items()))
    if budget:
        said.append(f"batch work keeps {minima[0]:g} and background work {minima[1]:g} of the time")
    if of_unit < 1:
        said.append(f"the device has {of_unit:g} of its unit")
    numbers: dict[str, Number] = {"models": len(demands), "users": len(users), "of_unit": of_unit, **shares}
    rule = "shares by weight of the users with work; a lower work class keeps its minimum"
    return Division(shares, budget, Reason(code="device.shares", text="; ".join(said), numbers=numbers, rule=rule))
