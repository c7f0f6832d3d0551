"""Where each loaded model is: on its device, asleep in host memory, on its way, or lost; and when it should sleep.

cold -> loading -> awake -> sleeping -> asleep -> loading (waking) -> awake; a load may fail. When a host dies, what was
awake or wanted is lost until it is loaded again, and what slept is cold. Proposes what to put to sleep, and why; the
caller does it and reports back. Pure: `now` is monotonic nanoseconds.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from llmos.syscalls.errors import BadState, Busy, NotFound
from llmos.syscalls.types import Reason

from .arbiter.history import WAYS, History, Key, Way
from .arbiter.policies import policy_named
from .arbiter.residence import SECOND, Candidate, Choice, Policy, apart, choose, together
from .ledger import count_text, size_text
from .resident import TRANSITIONS, Event, Model, State

STAY_S, LONGEST_STAY_S = 2.0, 30.0
"""A model that has become ready is not drained for as long as its wake takes, within these bounds."""


@dataclass(frozen=True, slots=True)
class Sleep:
    """Put this model to sleep, then report `SLEEP` and later `SLEPT`."""

    model: str
    reason: Reason
    bytes: int = 0
    """What its device gets back."""
    reload_s: float = 0.0
    """What it is expected to take until it can run again."""
    idle_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Drain:
    """Let this busy model start no more requests, so that it can sleep when those that run have ended."""

    model: str
    reason: Reason
    running: int
    after: int
    """Not before: it has just become ready, or is not ready yet."""


Action = Sleep


class Residency:
    """The residency of all loaded models."""

    def __init__(self, policy: Policy | None = None, history: History | None = None) -> None:
        self._models: dict[str, Model] = {}
        self.policy = policy or policy_named("value")
        self.history = history or History()

    def add(
        self,
        model: str,
        device: str,
        now: int,
        keep_alive_s: float = -1,
        pinned: bool = False,
        *,
        path: str = "",
        version: str = "",
        group: str = "",
        base: str = "",
    ) -> None:
        """Take up a model, cold. `keep_alive_s`: idle seconds after which it may sleep, -1 never.

        What is learned of its use and speed is kept for its path and version on this device. An adapter of `base` is
        where that is: its own keep-alive and group do not count.

        Raises:
            ValueError: the model is there already.
        """
        if model in self._models:
            raise ValueError(f"model {model} is there already")
        key = Key(path or model, version, device)
        entry = self._models[model] = Model(key, keep_alive_s, pinned, "" if base else group, now, base=base)
        if base:
            self._model(base).adapters[model] = entry

    def drop(self, model: str) -> None:
        """Forget a model; nothing happens when it is unknown."""
        entry = self._models.pop(model, None)
        if entry is not None and entry.base in self._models:
            del self._models[entry.base].adapters[model]

    def event(self, model: str, event: Event, now: int) -> State:
        """Apply what happened; the new state. A model that loaded or woke counts as used now.

        Raises:
            NotFound: no such model.
            BadState: not possible in its state, or it is to sleep while requests run on it; nothing changed.
        """
        entry = self._model(model)
        allowed, after = TRANSITIONS[event]
        if entry.state not in allowed:
            states = " or ".join(allowed)
            raise BadState(f"{model} is {entry.state}; {event} needs a model that is {states}", state=entry.state.value)
        if event is Event.SLEEP and entry.active:
            active = count_text(entry.active, "request")
            raise BadState(f"{model} cannot sleep: {active} under way", state=entry.state.value)
        if event is Event.SLEEP and any(each.jobs for each in entry.unit):
            raise BadState(f"{model} cannot sleep: it is being tuned", state=entry.state.value)
        if event in (Event.LOST, Event.GONE, Event.UNLOAD):
            entry.running = 0
        if event in (Event.LOADED, Event.SLEEP_FAILED):
            entry.used = now
        if event is Event.LOADED:
            entry.ready = now
        if after in (State.FAILED, State.ASLEEP, State.LOST, State.COLD):
            entry.granted = False
        entry.state = after
        return after

    def state(self, model: str) -> State:
        """Where a model is. Raises NotFound."""
        return self._model(model).state

    def used(self, model: str, now: int, weight: float = 1.0) -> None:
        """Somebody asked for the model, whose wait counts so much; its keep-alive starts again. Raises NotFound."""
        entry = self._model(model)
        entry.used = now
        self.history.asked(entry.key, now, weight)

    def measured(self, model: str, way: Way, seconds: float) -> None:
        """A load or wake of the model took so long. Raises NotFound."""
        entry = self._model(model)
        self.history.measured(entry.key, way, entry.bytes, seconds)

    def begin(self, model: str, now: int) -> None:
        """A request starts to run on the model: it is busy until as many have ended."""
        entry = self._model(model)
        entry.running += 1
        entry.used = now

    def end(self, model: str, now: int) -> None:
        """A request ended. After the model was lost or dropped this does nothing."""
        entry = self._models.get(model)
        if entry is not None and entry.running:
            entry.running -= 1
            entry.used = now

    def hold(self, model: str) -> None:
        """A task works on the model's weights: until as many `let_go` it is never proposed for sleep, and cannot be put
        to it. Raises NotFound."""
        self._model(model).jobs += 1

    def let_go(self, model: str, now: int) -> None:
        """The task is over. Of a model that was dropped meanwhile this does nothing."""
        entry = self._models.get(model)
        if entry is not None:
            entry.jobs -= 1
            entry.used = now

    def pin(self, model: str, pinned: bool, now: int) -> None:
        """A pinned model is never proposed for sleep. Raises NotFound."""
        entry = self._model(model)
        entry.pinned = pinned
        entry.used = now

    def keep_alive(self, model: str, seconds: float, now: int) -> None:
        """Change the keep-alive time; -1 never, 0 as soon as it is idle. Raises NotFound."""
        entry = self._model(model)
        entry.keep_alive_s = seconds
        entry.used = now

    def exchanged(self, model: str, path: str, version: str) -> None:
        """Other weights have taken its place: what is learned from now on is of these. Raises NotFound."""
        entry = self._model(model)
        entry.key = Key(path, version, entry.key.device)

    def set_bytes(self, model: str, bytes: int) -> None:
        """How many bytes of its device the model holds while awake. Raises NotFound."""
        self._model(model).bytes = bytes

    def granted(self, model: str, bytes: int) -> None:
        """The model is promised so many bytes of its device and will use them soon, or 0: it gave them back. Raises
        NotFound."""
        entry = self._model(model)
        entry.granted, entry.bytes = bytes > 0, bytes

    def pinned(self, model: str) -> bool:
        """Whether it is pinned. Raises NotFound."""
        return self._model(model).pinned

    def evictable(self, model: str) -> bool:
        """Whether it could be put to sleep now to make room. Raises NotFound."""
        entry = self._model(model)
        return _evictable(self._models.get(entry.base, entry))

    def tick(self, now: int) -> list[Action]:
        """What should sleep, unused for its keep-alive time; proposed again until the caller reports it.

        Models of a group sleep together, when all that are awake should.
        """
        due = {name: entry for name, entry in self._models.items() if _passed(entry.due(), now)}
        awake = [entry for name, entry in self._models.items() if entry.state is State.AWAKE and name not in due]
        needed = {(entry.key.device, entry.group) for entry in awake if together(entry.group)}
        actions = []
        for name, entry in due.items():
            if (entry.key.device, entry.group) in needed:
                continue
            idle = (now - entry.last_used) / SECOND
            reason = Reason(
                code="model.idle",
                text=f"it was not used for {idle:.1f} s; keep_alive is {entry.keep_alive_s:g} s",
                numbers={"idle_s": idle, "keep_alive_s": entry.keep_alive_s},
                rule="idle for keep_alive",
            )
            actions.append(Sleep(name, reason))
        return actions

    def next_tick(self) -> int | None:
        """When `tick` has something to do next."""
        return min((due for entry in self._models.values() if (due := entry.due()) is not None), default=None)

    def victims(
        self, device: str, bytes_needed: int, now: int, keep: Collection[str] = (), busy: bool = False
    ) -> list[Sleep]:
        """What to put to sleep to free at least so many bytes, in the order of the policy; never pinned, never busy,
        and none of `keep`. With `busy` as if nothing were busy.

        Empty when even all of them would not be enough, so that nothing is evicted in vain.
        """
        view = [
            self._candidate(name, entry, busy=entry.active > 0 and not busy)
            for name, entry in self._bases(device, keep)
            if entry.state is State.AWAKE
        ]
        chosen = choose(self.policy, view, bytes_needed, now)
        return [_evicted(device, bytes_needed, choice, now) for choice in chosen]

    def drains(self, device: str, bytes_needed: int, now: int, keep: Collection[str] = ()) -> list[Drain]:
        """Which busy models should start no more requests, when idle ones are not enough."""
        chosen = self.victims(device, bytes_needed, now, keep, busy=True)
        return [self._drained(each.model, each.reason) for each in chosen if self._models[each.model].active]

    def rivals(self, model: str, now: int) -> list[Sleep | Drain]:
        """What has to leave before this model may be awake, however many bytes are free: members of a group `!NAME` are
        never awake together on a device.

        Raises:
            NotFound: no such model.
            Busy: one of them is pinned.
        """
        mine = self._model(model)
        found: list[Sleep | Drain] = []
        others = [(name, entry) for name, entry in self._models.items() if name != model and entry.holds]
        for name, entry in others if apart(mine.group) else []:
            if (entry.group, entry.key.device) != (mine.group, mine.key.device):
                continue
            if entry.fixed:
                raise Busy(f"a model of the group {mine.group} is pinned on {mine.key.device}; unpin it first")
            reason = Reason(
                code="model.evicted",
                text=f"models of the group {mine.group} are never awake together",
                numbers={"frees": entry.bytes},
                rule="a group whose name begins with ! is of models apart",
            )
            if entry.state is State.AWAKE and not entry.active:
                found.append(Sleep(name, reason, entry.freed, idle_s=(now - entry.last_used) / SECOND))
            else:
                found.append(self._drained(name, reason))
        return found

    def movable(self, device: str, keep: Collection[str] = ()) -> int:
        """Bytes that would come free if all but the pinned ones and those of `keep` left, when what runs has ended."""
        return sum(entry.freed for _, entry in self._bases(device, keep) if not entry.fixed)

    def cooling(self, held: Mapping[str, int], bytes_needed: int, now: int) -> list[Sleep]:
        """Which models that sleep should leave memory altogether, to free so many of the bytes that they hold of it.

        Empty when nothing is needed, and when even all of them would not be enough.
        """
        view = [
            self._asleep(name, held[name])
            for name, entry in self._models.items()
            if entry.state is State.ASLEEP and not entry.base and held.get(name, 0)
        ]
        chosen = choose(self.policy, view, bytes_needed, now)
        return [_evicted("the machine", bytes_needed, each, now) for each in chosen]

    def idle_bytes(self, device: str) -> int:
        """Bytes of a device that models hold which could sleep now."""
        return sum(entry.freed for _, entry in self._bases(device) if _evictable(entry))

    def _bases(self, device: str, keep: Collection[str] = ()) -> list[tuple[str, Model]]:
        """The models of a device that are no adapters, but those of which any part is in `keep`."""
        return [
            (name, entry)
            for name, entry in self._models.items()
            if entry.key.device == device and not entry.base
            and not any(each in keep for each in (name, *entry.adapters))
        ]

    def _asleep(self, model: str, bytes: int) -> Candidate:
        entry = self._models[model]
        load_s, wake_s = (self.history.seconds(entry.key, way, entry.bytes) for way in WAYS)
        return replace(self._candidate(model, entry, busy=False), bytes=bytes, reload_s=max(load_s - wake_s, 0.0))

    def companions(self, model: str) -> list[str]:
        """Members of its group that should be awake with it and are not. Raises NotFound."""
        mine = self._model(model)
        if not together(mine.group):
            return []
        same = [n for n, e in self._models.items() if (e.group, e.key.device) == (mine.group, mine.key.device)]
        return [name for name in same if self._models[name].state in (State.ASLEEP, State.COLD)]

    def _drained(self, model: str, reason: Reason) -> Drain:
        entry = self._models[model]
        stay_s = min(max(STAY_S, self.history.seconds(entry.key, "wake", entry.bytes)), LONGEST_STAY_S)
        after = entry.ready + int(stay_s * SECOND)
        return Drain(model, reason, entry.active, after)

    def _candidate(self, model: str, entry: Model, busy: bool) -> Candidate:
        return Candidate(
            model=model,
            bytes=entry.freed,
            reload_s=self.history.seconds(entry.key, "wake", entry.bytes),
            rate=sum(self.history.rate(each.key) for each in entry.unit),
            used=entry.last_used,
            keep_alive_s=entry.keep_alive_s,
            pinned=entry.fixed,
            busy=busy,
            group=entry.group,
        )

    def _model(self, model: str) -> Model:
        try:
            return self._models[model]
        except KeyError:
            raise NotFound(f"no model {model!r} is loaded") from None


def _passed(due: int | None, now: int) -> bool:
    return due is not None and due <= now


def _evictable(entry: Model) -> bool:
    return entry.state is State.AWAKE and not entry.fixed and not entry.active and entry.bytes > 0


def _evicted(device: str, needed: int, choice: Choice, now: int) -> Sleep:
    gone, idle = choice.candidate, (now - choice.candidate.used) / SECOND
    reason = Reason(
        code="model.evicted",
        text=f"{device} is short of {size_text(needed)}, it holds {size_text(gone.bytes)} and was not used for "
        f"{idle:.1f} s",
        numbers={"needed": needed, "frees": gone.bytes, "idle_s": idle, **choice.numbers},
        rule=f"{choice.rule}; never pinned, never busy",
    )
    return Sleep(gone.model, reason, gone.bytes, gone.reload_s, idle)


__all__ = ["SECOND", "Action", "Drain", "Event", "Residency", "Sleep", "State"]
