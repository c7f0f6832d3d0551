"""The advice of a kernel: what is looked at, what drivers are asked to plan for it, and when it is told."""

from __future__ import annotations

import os
from collections import Counter
from typing import TYPE_CHECKING, Any

import msgspec

from llmos.syscalls.errors import LlmosError
from llmos.syscalls.types import Advice, Plan, Quant, Reason

from .advice.advisor import DeviceFacts, Facts, ModelFacts, OwnerFacts, Planned, Wish, advise, wishes
from .advice.snapshot import Snapshot, Window
from .objects import ModelObject
from .placing import rank
from .supervisor import DriverState

if TYPE_CHECKING:
    from .core import Kernel

WINDOW_S = 900.0
EVERY_NS = 10_000_000_000
BUSY_S = 300.0
_SPENT = "llmos_device_nanoseconds_total"


class Advisor:
    """Looks about every ten seconds; advice that is new is journaled once."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._plans: dict[Wish, Planned | None] = {}
        """What was planned; None where it cannot be had, or is under way."""
        self._spent = Window(BUSY_S)
        self._busy: dict[str, float] = {}
        self._told: set[tuple[str, str]] = set()
        self._next = 0

    def advice(self) -> list[Advice]:
        """What is advised now."""
        return advise(self.facts(), {wish: plan for wish, plan in self._plans.items() if plan is not None})

    def tick(self, now: int) -> None:
        """Called about once a second."""
        if now < self._next:
            return
        self._next = now + EVERY_NS
        self.look(now)

    def look(self, now: int) -> None:
        """Have planned what has to be planned, and tell what is new."""
        self._sample(now)
        self._forget()
        for wish in wishes(self.facts()):
            if wish not in self._plans:
                self._plans[wish] = None
                self._kernel.runner.spawn(self._plan(wish), lambda _value, _error: None)
        said = self.advice()
        for each in said:
            if (each.code, each.about) not in self._told:
                self._kernel.decide([each.about], _reason(each))
        self._told = {(each.code, each.about) for each in said}

    def facts(self) -> Facts:
        """What the rules look at."""
        kernel = self._kernel
        since = kernel.wall() - WINDOW_S
        evicted = Counter(ids[0] for ids, _reason in kernel.decisions.recent("model.evicted", since))
        return Facts(
            window_s=WINDOW_S,
            models=[self._model(model, evicted[model.id]) for model in kernel.models.by_id.values()],
            devices=self._devices(since),
            owners=self._owners(since),
        )

    def _model(self, model: ModelObject, evicted: int) -> ModelFacts:
        kernel, loaded, options = self._kernel, model.loaded, model.options
        rows = loaded.rows if loaded is not None else []
        held = Counter[str]()
        for row in rows:
            held[row.what] += max(row.predicted, row.allocator)
        manifest = model.located.manifest
        usage = kernel.instruments.kv_usage.labels(model.name).value
        loads = kernel.instruments.model_load.labels(model.name)
        return ModelFacts(
            id=model.id,
            name=model.name,
            path=_named(kernel, model),
            device=model.driver.name,
            weights=held["weights"],
            kv=held["kv"],
            bytes=sum(held.values()),
            quantized=options.quant is not None or bool(manifest.get("quant")),
            kv_dtype=options.kv_dtype,
            max_context=options.max_context,
            context=int(manifest.get("context") or 0),
            kv_usage=usage,
            waiting=len(kernel.scheduler.waiting(model.id)),
            slots=loaded.slots if loaded is not None else 0,
            requests=model.requests,
            evicted=evicted,
            reload_s=loads.sum / sum(loads.counts) if loads.sum else 0.0,
            pinned=kernel.residency.pinned(model.id),
            base=model.base.id if model.base is not None else "",
            tokens_per_s=model.speed.values().get("tokens_per_s", 0.0),
            rung=loaded.rung if loaded is not None else "",
            asked_rung=options.rung,
        )

    def _devices(self, since: float) -> list[DeviceFacts]:
        kernel = self._kernel
        # The model's and the request's record of one refusal count once.
        told = {
            (id, reason.text, int(reason.at)): _short(reason)
            for ids, reason in kernel.decisions.recent("memory.refused", since)
            for id in ids
        }
        refused = Counter(id for id, _text, _at in told)
        found = []
        for driver in kernel.supervisor.drivers.values():
            if driver.is_device and driver.state is DriverState.READY:
                rows = kernel.ledger.rows(driver.name)
                others = sum(row.ledger for row in rows if row.what in ("foreign", "reserve"))
                found.append(
                    DeviceFacts(
                        name=driver.name,
                        total=kernel.ledger.total(driver.name) - others,
                        free=kernel.ledger.free(driver.name),
                        busy=self._busy.get(driver.name, 0.0),
                        refused=refused[driver.name],
                        short=min((short for (id, _text, _at), short in told.items() if id == driver.name), default=0),
                        rank=rank(driver.name),
                    )
                )
        return found

    def _owners(self, since: float) -> list[OwnerFacts]:
        kernel = self._kernel
        owners = {session.owner for session in kernel.sessions.by_id.values()}
        answered = Counter(
            id
            for ids, reason in kernel.decisions.recent("request.done", since)
            if "new_tokens" in reason.numbers
            for id in owners & set(ids)
        )
        refused: Counter[tuple[str, str, int]] = Counter()
        for each in kernel.decisions.refused_since(since):
            if each.quota is not None:
                refused.update((owner, *each.quota) for owner in owners & set(each.about))
        return [
            OwnerFacts(owner=owner, what=what, limit=limit, refused=count, answered=answered[owner])
            for (owner, what, limit), count in refused.items()
        ]  # fmt: skip

    def _sample(self, now: int) -> None:
        """How much of its time each device has computed lately."""
        metrics = self._kernel.instruments.registry.snapshot(_SPENT)
        seen = Snapshot(now / 1e9, metrics)
        before = self._spent.add(seen)
        seconds = seen.at - before.at
        if seconds > 0:
            names = {metric.labels["device"] for metric in metrics.values()}
            self._busy = {
                name: min(1.0, (seen.value(_SPENT, device=name) - before.value(_SPENT, device=name)) / seconds / 1e9)
                for name in names
            }

    def _forget(self) -> None:
        """Drop the plans of models that are gone."""
        known = self._kernel.models.by_id
        self._plans = {wish: plan for wish, plan in self._plans.items() if wish.model in known}

    async def _plan(self, wish: Wish) -> None:
        """Have the model's driver plan it; a wish that cannot be planned is not asked for again."""
        kernel = self._kernel
        model = kernel.models.by_id[wish.model]
        changed: dict[str, Any] = dict(wish.options)
        if "quant" in changed:
            changed["quant"] = Quant()  # eight bits, which is what `w8` means
        options = msgspec.structs.replace(model.options, **changed)
        try:
            plan = await kernel.models.plan(model.driver, model.located, options, model.host_id)
        except LlmosError as error:
            kernel.log("advice", f"{model.name} with {dict(wish.options)}: {error}", model.id, level="debug")
            return
        self._plans[wish] = Planned(_planned(plan, "weights"), _planned(plan, "kv"))


def _named(kernel: Kernel, model: ModelObject) -> str:
    """What every session can load it by: its path where policy mounts it, else the folder of this machine that the one
    session has mounted which loaded it."""
    policy, source = kernel.config.policy(kernel.uid), model.located.source
    everywhere = policy is not None and any(mount.source == source for mount in policy.mounts.values())
    if everywhere or not source.startswith("/") or os.pathsep in source:
        return model.path
    return "file:" + (source.rstrip("/") + model.located.path).rstrip("/")


def _short(reason: Reason) -> int:
    """How many bytes a refusal was short of."""
    needed, free, evictable = (int(reason.numbers.get(name, 0)) for name in ("needed", "free", "evictable"))
    return max(0, needed - free - evictable)


def _planned(plan: Plan, what: str) -> int:
    return sum(row.predicted for row in plan.rows if row.what == what)


def _reason(advice: Advice) -> Reason:
    numbers = {**advice.evidence, **{f"gain_{name}": value for name, value in advice.gain.items()}}
    return Reason(code="advice.given", text=advice.text, numbers=numbers, rule=advice.code, change=advice.action)


def queues(kernel: Kernel) -> list[dict[str, Any]]:
    """Who waits and runs: by model, work class and owner, with how long the oldest of each has waited."""
    now = kernel.runner.clock()
    waiting, running = kernel.scheduler.waiting(), kernel.scheduler.running()
    counted: dict[tuple[str, str, str], dict[str, Any]] = {}
    for state, tickets in (("waiting", waiting), ("running", running)):
        for ticket in tickets:
            key = ticket.lane, str(ticket.work_class), ticket.owner
            each = counted.setdefault(key, _queue(kernel, *key))
            each[state] += 1
            if state == "waiting":
                each["oldest_s"] = max(each["oldest_s"], (now - ticket.arrived_ns) / 1e9)
    return sorted(counted.values(), key=_order)


def _queue(kernel: Kernel, lane: str, work_class: str, owner: str) -> dict[str, Any]:
    model = kernel.models.by_id.get(lane)
    return {
        "model": lane, "name": model.name if model is not None else lane, "work_class": work_class, "owner": owner,
        "waiting": 0, "running": 0, "oldest_s": 0.0,
    }  # fmt: skip


def _order(queue: dict[str, Any]) -> tuple[str, int, str, str]:
    return queue["name"], -queue["waiting"], queue["work_class"], queue["owner"]
