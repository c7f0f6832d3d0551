"""What would make the system better: rules over what the kernel has seen, with evidence and expected gain. Pure.

Two of the rules need to know what a model would take with other options. They say so as a `Wish`; who calls has the
device plan it and gives the answer back, so that the gain that is claimed is planned like any load.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

from llmos.syscalls.types import Advice, Number

from ..ledger import size_text

EVICTIONS = 2
"""A model that had to leave so often within the window comes and goes."""
REFUSALS = 5
FULL = 0.9
"""Share of the pages in use from which on keys and values are short."""
BUSY, QUIET = 0.8, 0.2
"""Share of its time that a device computes."""
IDLE = 0.5
"""A device that computes less than this could take more of a user whose quota is used up."""
QUEUE = 4
"""So many waiting requests are worth another device."""
ADAPTED = 20
"""Requests after which it can be said who is asked, an adapter or its base."""
SMALLER = 0.8
"""Fewer bytes than this share are worth a load."""
NARROW = "fp8"
QUANT = "w8"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """A loaded model."""

    id: str
    name: str
    path: str
    device: str
    weights: int = 0
    """Bytes."""
    kv: int = 0
    bytes: int = 0
    """All that it takes of its device when it is awake."""
    quantized: bool = False
    kv_dtype: str = "auto"
    max_context: int | None = None
    context: int = 0
    """The most that the model itself takes."""
    kv_usage: float = 0.0
    waiting: int = 0
    slots: int = 0
    requests: int = 0
    evicted: int = 0
    """Within the window."""
    reload_s: float = 0.0
    """How long it takes to be ready again."""
    pinned: bool = False
    base: str = ""
    """Of an adapter: the id of its base."""
    tokens_per_s: float = 0.0
    """Of a single stream; 0 where it was not measured."""
    rung: str = ""
    asked_rung: str = ""
    """The rung that its load asked for; empty for the highest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceFacts:
    """A device."""

    name: str
    total: int
    """Bytes that models may take."""
    free: int
    busy: float = 0.0
    refused: int = 0
    """Refusals for want of its memory within the window."""
    short: int = 0
    """Bytes that were missing in the one of them that was missing fewest."""
    rank: int = 0
    """Devices of the same rank are as good as each other; a lower one is better."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnerFacts:
    """A user (and tenant) and one of the limits that requests were refused by."""

    owner: str
    what: str
    limit: int
    refused: int
    answered: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """All that is looked at."""

    window_s: float
    models: Sequence[ModelFacts] = ()
    devices: Sequence[DeviceFacts] = ()
    owners: Sequence[OwnerFacts] = ()

    def device(self, name: str) -> DeviceFacts:
        """The facts of a device; of one that is not there, that it has nothing."""
        return next((each for each in self.devices if each.name == name), DeviceFacts(name=name, total=0, free=0))


@dataclass(frozen=True, slots=True)
class Wish:
    """What would a loaded model take with these options changed?"""

    model: str
    options: tuple[tuple[str, Any], ...]


@dataclass(frozen=True, slots=True)
class Planned:
    """The answer: bytes."""

    weights: int
    kv: int


Plans = Mapping[Wish, Planned]


def wishes(facts: Facts) -> list[Wish]:
    """What has to be planned before `advise` can say all that it could."""
    found = [Wish(model.id, (("quant", QUANT),)) for model in facts.models if _too_large(model, facts)]
    found += [wish for model in facts.models if (wish := _more_kv_wish(model)) is not None]
    return found


def advise(facts: Facts, plans: Plans) -> list[Advice]:
    """All advice, in the order of the rules."""
    rules = (_pin, _quantize, _more_kv, _other_device, _raise_quota, _merge_adapter, _rung)
    return [advice for rule in rules for advice in rule(facts, plans)]


def _said(
    code: str, model: ModelFacts, text: str, action: str, evidence: dict[str, Number], gain: dict[str, Number]
) -> Advice:
    return Advice(
        code=code, about=model.id, name=model.name, text=text, evidence=evidence, gain=gain, action=action
    )


def _minutes(facts: Facts) -> str:
    return f"the last {facts.window_s / 60:g} minutes"


# ---- pin


def _pin(facts: Facts, plans: Plans) -> list[Advice]:
    """The most used of the models that come and go on a device, where the others still fit beside it."""
    found = []
    for device in facts.devices:
        there = [model for model in facts.models if model.device == device.name]
        going = [model for model in there if model.evicted >= EVICTIONS and not model.pinned and model.reload_s > 0]
        if not going:
            continue
        best = max(going, key=lambda model: (model.requests * model.reload_s, model.id))
        pinned = sum(model.bytes for model in there if model.pinned)
        largest = max((model.bytes for model in there if model is not best and not model.pinned), default=0)
        if pinned + best.bytes + largest > device.total:
            continue
        saved = best.evicted * best.reload_s
        found.append(
            _said(
                "pin", best,
                f"{best.name} had to leave {device.name} {best.evicted} times in {_minutes(facts)} and took "
                f"{best.reload_s:.2f} s to come back each time; it is asked most often of those that come and go",
                f"llmos pin {best.name}",
                {"evictions": best.evicted, "reload_s": best.reload_s, "requests": best.requests},
                {"evictions": -best.evicted, "seconds": -saved},
            )
        )  # fmt: skip
    return found


# ---- quantize


def _too_large(model: ModelFacts, facts: Facts) -> bool:
    """Whether fewer bytes of its weights would help: it comes and goes, or is the largest of a device that refuses."""
    if model.quantized or model.base or not model.weights:
        return False
    if model.evicted >= EVICTIONS:
        return True
    there = [each for each in facts.models if each.device == model.device and not each.quantized and not each.base]
    device = facts.device(model.device)
    if not device.refused or model.weights < device.short:
        return False
    return model is max(there, key=lambda each: (each.weights, each.id))


def _quantize(facts: Facts, plans: Plans) -> list[Advice]:
    found = []
    for model in facts.models:
        planned = plans.get(Wish(model.id, (("quant", QUANT),)))
        if planned is None or not _too_large(model, facts) or planned.weights > SMALLER * model.weights:
            continue
        device = facts.device(model.device)
        if model.evicted < EVICTIONS and model.weights - planned.weights < device.short:
            continue  # what was refused would not fit either way
        why = (
            f"it had to leave {model.device} {model.evicted} times in {_minutes(facts)}"
            if model.evicted >= EVICTIONS
            else f"{model.device} refused {device.refused} times for want of memory in {_minutes(facts)}"
        )
        found.append(
            _said(
                "quantize", model,
                f"with weights of 8 bits {model.name} takes {size_text(planned.weights)} of weights instead of "
                f"{size_text(model.weights)}: {why}",
                f"llmos load {model.path} --device {model.device} --name {model.name} --replace --quant {QUANT}",
                {"evictions": model.evicted, "refused": device.refused, "weights_bytes": model.weights},
                {"weights_bytes": planned.weights - model.weights},
            )
        )  # fmt: skip
    return found


# ---- keys and values


def _more_kv_wish(model: ModelFacts) -> Wish | None:
    """What to plan for a model whose requests wait for pages."""
    if model.kv_usage < FULL or not model.waiting or not model.kv:
        return None
    if model.max_context is not None and model.max_context < model.context:
        return Wish(model.id, (("max_context", min(2 * model.max_context, model.context)),))
    return Wish(model.id, (("kv_dtype", NARROW),)) if model.kv_dtype == "auto" else None


def _more_kv(facts: Facts, plans: Plans) -> list[Advice]:
    found = []
    for model in facts.models:
        wish = _more_kv_wish(model)
        planned = plans.get(wish) if wish is not None else None
        if wish is None or planned is None:
            continue
        ((option, value),) = wish.options
        evidence: dict[str, Number] = {"kv_usage": model.kv_usage, "waiting": model.waiting, "kv_bytes": model.kv}
        grown = planned.kv - model.kv
        flag = option.replace("_", "-")
        if option == "max_context" and grown > facts.device(model.device).free:
            continue
        found.append(
            _said(
                "more_kv", model,
                f"{100 * model.kv_usage:.0f} % of the pages of {model.name} are in use and {model.waiting} requests "
                f"wait: {option}={value} gives it {size_text(planned.kv)} of keys and values instead of "
                f"{size_text(model.kv)}"
                + ("" if option == "max_context" else ", and each token takes half of what it took, or less"),
                f"llmos load {model.path} --device {model.device} --name {model.name} --replace --{flag} {value}",
                evidence,
                {"kv_bytes": grown},
            )
        )  # fmt: skip
    return found


# ---- another device


def _other_device(facts: Facts, plans: Plans) -> list[Advice]:
    """The longest queue of a busy device, where another one that is as good has nothing to do."""
    found = []
    for device in facts.devices:
        waiting = [each for each in facts.models if each.device == device.name and each.waiting >= QUEUE]
        if device.busy < BUSY or not waiting:
            continue
        model = max(waiting, key=lambda each: (each.waiting, each.id))
        free = [
            each for each in facts.devices
            if each is not device and each.rank <= device.rank and each.busy <= QUIET and each.free >= model.bytes
        ]  # fmt: skip
        if not free:
            continue
        other = min(free, key=lambda each: (each.rank, each.busy, each.name))
        found.append(
            _said(
                "other_device", model,
                f"{model.waiting} requests wait for {model.name} on {device.name}, which computes "
                f"{100 * device.busy:.0f} % of the time; {other.name} computes {100 * other.busy:.0f} % and has room",
                f"llmos load {model.path} --device {other.name} --name {model.name} --replace",
                {"waiting": model.waiting, "busy": device.busy, "busy_there": other.busy, "free_bytes": other.free},
                {"busy": other.busy - device.busy},
            )
        )  # fmt: skip
    return found


# ---- quotas


def _raise_quota(facts: Facts, plans: Plans) -> list[Advice]:
    """A user who is refused while the devices have time."""
    busiest = max((device.busy for device in facts.devices), default=1.0)
    found = []
    for each in facts.owners:
        if each.refused < REFUSALS or each.limit <= 0 or busiest > IDLE:
            continue
        asked = each.refused + each.answered
        limit = ceil(each.limit * asked / max(1, each.answered))
        found.append(
            Advice(
                code="raise_quota", about=each.owner, name=each.owner,
                text=f"{each.refused} of the {asked} requests of {each.owner} in {_minutes(facts)} were refused by "
                f"{each.what} = {each.limit}, while the busiest device computes {100 * busiest:.0f} % of the time",
                evidence={"refused": each.refused, "answered": each.answered, "limit": each.limit, "busy": busiest},
                gain={"refused": -each.refused, "limit": limit},
                action=f"in the policy of {each.owner}: limits = {{ {each.what} = {limit} }}, then SIGHUP",
            )
        )  # fmt: skip
    return found


# ---- adapters and rungs


def _stored(model: ModelFacts) -> str:
    """Where a model that is made of it can be stored: a folder of the machine is read only."""
    return f"/models/{model.name}" if model.path.startswith("file:") else model.path


def _merge_adapter(facts: Facts, plans: Plans) -> list[Advice]:
    """An adapter that is the only one, and asked instead of its base nearly always."""
    by_id = {model.id: model for model in facts.models}
    adapters = [model for model in facts.models if model.base in by_id]
    found = []
    for adapter in adapters:
        base = by_id[adapter.base]
        alone = sum(each.base == adapter.base for each in adapters) == 1
        asked = adapter.requests + base.requests
        if not alone or adapter.requests < ADAPTED or adapter.requests < FULL * asked:
            continue
        gain: dict[str, Number] = {"bytes": -adapter.bytes}
        faster = ""
        if base.tokens_per_s > adapter.tokens_per_s > 0:
            gain["tokens_per_s"] = base.tokens_per_s - adapter.tokens_per_s
            faster = f", and answers at {base.tokens_per_s:.1f} tokens/s instead of {adapter.tokens_per_s:.1f}"
        found.append(
            _said(
                "merge_adapter", adapter,
                f"{adapter.requests} of {asked} requests ask for the adapter {adapter.name}, hardly any for its base "
                f"{base.name}: merged, it needs no bytes beside the base{faster}",
                f"llmos merge {base.path} {adapter.path} {_stored(base)}-{adapter.name} --method adapter",
                {"requests": adapter.requests, "requests_of_base": base.requests, "bytes": adapter.bytes},
                gain,
            )
        )  # fmt: skip
    return found


def _rung(facts: Facts, plans: Plans) -> list[Advice]:
    """A model that was loaded for a lower rung than it could have, and that is waited for."""
    return [
        _said(
            "rung", model,
            f"{model.name} runs on rung {model.rung} since its load asked for that, {model.slots} requests at a time, "
            f"and {model.waiting} wait: without rung={model.asked_rung} the highest rung that serves it is taken",
            f"llmos load {model.path} --device {model.device} --name {model.name} --replace",
            {"waiting": model.waiting, "slots": model.slots},
            {"waiting": -model.waiting},
        )
        for model in facts.models
        if model.asked_rung and model.rung == model.asked_rung and model.waiting >= QUEUE
    ]  # fmt: skip
