"""Where each loaded model is: on its device, asleep in host memory, on its way, or lost; and when it should sleep.

cold -> loading -> awake -> sleeping -> asleep -> loading (waking) -> awake; a load may fail; a host's death makes any
of them lost until it is loaded again. Proposes what to put to sleep, and why; the caller does it and reports back.
Pure: `now` is monotonic nanoseconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from llmos.syscalls.errors import BadState, NotFound
from llmos.syscalls.types import Reason

from .ledger import size_text

SECOND = 1_000_000_000


class State(StrEnum):
    COLD = "cold"
    LOADING = "loading"
    AWAKE = "awake"
    SLEEPING = "sleeping"
    ASLEEP = "asleep"
    FAILED = "failed"
    LOST = "lost"


class Event(StrEnum):
    """What happened to a model, or was just begun."""

    LOAD = "load"
    LOADED = "loaded"
    LOAD_FAILED = "load_failed"
    SLEEP = "sleep"
    SLEPT = "slept"
    SLEEP_FAILED = "sleep_failed"
    WAKE = "wake"
    LOST = "lost"
    UNLOAD = "unload"


_TRANSITIONS: dict[Event, tuple[tuple[State, ...], State]] = {
    Event.LOAD: ((State.COLD, State.FAILED, State.LOST), State.LOADING),
    Event.LOADED: ((State.LOADING,), State.AWAKE),
    Event.LOAD_FAILED: ((State.LOADING,), State.FAILED),
    Event.SLEEP: ((State.AWAKE,), State.SLEEPING),
    Event.SLEPT: ((State.SLEEPING,), State.ASLEEP),
    Event.SLEEP_FAILED: ((State.SLEEPING,), State.AWAKE),
    Event.WAKE: ((State.ASLEEP,), State.LOADING),
    Event.LOST: ((State.LOADING, State.AWAKE, State.SLEEPING, State.ASLEEP), State.LOST),
    Event.UNLOAD: ((State.COLD, State.AWAKE, State.ASLEEP, State.FAILED, State.LOST), State.COLD),
}


@dataclass(frozen=True, slots=True)
class Sleep:
    """Put this model to sleep, then report `SLEEP` and later `SLEPT`."""

    model: str
    reason: Reason


Action = Sleep


@dataclass(slots=True)
class _Model:
    device: str
    keep_alive_s: float
    pinned: bool
    used: int
    state: State = State.COLD
    bytes: int = 0
    running: int = 0

    def due(self) -> int | None:
        """When it has been idle for long enough to sleep."""
        if self.state is not State.AWAKE or self.pinned or self.running or self.keep_alive_s < 0:
            return None
        return self.used + int(self.keep_alive_s * SECOND)


class Residency:
    """The residency of all loaded models."""

    def __init__(self) -> None:
        self._models: dict[str, _Model] = {}

    def add(self, model: str, device: str, now: int, keep_alive_s: float = -1, pinned: bool = False) -> None:
        """Take up a model, cold. `keep_alive_s`: idle seconds after which it may sleep, -1 never.

        Raises:
            ValueError: the model is there already.
        """
        if model in self._models:
            raise ValueError(f"model {model} is there already")
        self._models[model] = _Model(device, keep_alive_s, pinned, now)

    def drop(self, model: str) -> None:
        """Forget a model; nothing happens when it is unknown."""
        self._models.pop(model, None)

    def event(self, model: str, event: Event, now: int) -> State:
        """Apply what happened; the new state. A model that loaded or woke counts as used now.

        Raises:
            NotFound: no such model.
            BadState: not possible in its state, or it is to sleep while requests run on it; nothing changed.
        """
        entry = self._model(model)
        allowed, after = _TRANSITIONS[event]
        if entry.state not in allowed:
            states = " or ".join(allowed)
            raise BadState(f"{model} is {entry.state}; {event} needs a model that is {states}", state=entry.state.value)
        if event is Event.SLEEP and entry.running:
            raise BadState(f"{model} cannot sleep: {entry.running} requests run on it", state=entry.state.value)
        if event in (Event.LOST, Event.UNLOAD):
            entry.running = 0
        if event in (Event.LOADED, Event.SLEEP_FAILED):
            entry.used = now
        entry.state = after
        return after

    def state(self, model: str) -> State:
        """Where a model is. Raises NotFound."""
        return self._model(model).state

    def used(self, model: str, now: int) -> None:
        """Somebody asked for the model: its keep-alive time starts again."""
        self._model(model).used = now

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

    def set_bytes(self, model: str, bytes: int) -> None:
        """How many bytes of its device the model holds while awake. Raises NotFound."""
        self._model(model).bytes = bytes

    def pinned(self, model: str) -> bool:
        """Whether it is pinned. Raises NotFound."""
        return self._model(model).pinned

    def evictable(self, model: str) -> bool:
        """Whether it could be put to sleep now to make room. Raises NotFound."""
        return _evictable(self._model(model))

    def tick(self, now: int) -> list[Action]:
        """What should sleep, unused for its keep-alive time; proposed again until the caller reports it."""
        actions = []
        for name, entry in self._models.items():
            due = entry.due()
            if due is not None and due <= now:
                idle = (now - entry.used) / SECOND
                actions.append(
                    Sleep(
                        name,
                        Reason(
                            code="model.idle",
                            text=f"it was not used for {idle:.1f} s; keep_alive is {entry.keep_alive_s:g} s",
                            numbers={"idle_s": idle, "keep_alive_s": entry.keep_alive_s},
                            rule="idle for keep_alive",
                        ),
                    )
                )
        return actions

    def next_tick(self) -> int | None:
        """When `tick` has something to do next."""
        return min((due for entry in self._models.values() if (due := entry.due()) is not None), default=None)

    def victims(self, device: str, bytes_needed: int, now: int) -> list[Sleep]:
        """What to put to sleep to free at least so many bytes: least recently used first, never pinned, never busy.

        Empty when even all of them would not be enough, so that nothing is evicted in vain.
        """
        candidates = sorted(
            (entry.used, name) for name, entry in self._models.items() if entry.device == device and _evictable(entry)
        )
        chosen: list[Sleep] = []
        freed = 0
        for used, name in candidates:
            if freed >= bytes_needed:
                break
            freed += self._models[name].bytes
            chosen.append(Sleep(name, _evicted(device, bytes_needed, self._models[name].bytes, now - used)))
        return chosen if freed >= bytes_needed else []

    def _model(self, model: str) -> _Model:
        try:
            return self._models[model]
        except KeyError:
            raise NotFound(f"no model {model!r} is loaded") from None


def _evictable(entry: _Model) -> bool:
    return entry.state is State.AWAKE and not entry.pinned and not entry.running and entry.bytes > 0


def _evicted(device: str, needed: int, frees: int, idle_ns: int) -> Reason:
    return Reason(
        code="model.evicted",
        text=f"{device} is short of {size_text(needed)}, it holds {size_text(frees)} and was not used for "
        f"{idle_ns / SECOND:.1f} s",
        numbers={"needed": needed, "frees": frees, "idle_s": idle_ns / SECOND},
        rule="least recently used first; never pinned, never busy",
    )
