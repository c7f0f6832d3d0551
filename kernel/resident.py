"""One model of `residency`: where it is, what can happen to it there, and what lies on its weights."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from .arbiter.history import Key
from .arbiter.residence import SECOND


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
    GONE = "gone"
    """What slept is gone with its host."""
    NO_ROOM = "no_room"
    """It was to be loaded or woken and found no room."""
    UNLOAD = "unload"


TRANSITIONS: dict[Event, tuple[tuple[State, ...], State]] = {
    Event.LOAD: ((State.COLD, State.FAILED, State.LOST), State.LOADING),
    Event.LOADED: ((State.LOADING,), State.AWAKE),
    Event.LOAD_FAILED: ((State.LOADING,), State.FAILED),
    Event.SLEEP: ((State.AWAKE,), State.SLEEPING),
    Event.SLEPT: ((State.SLEEPING,), State.ASLEEP),
    Event.SLEEP_FAILED: ((State.SLEEPING,), State.AWAKE),
    Event.WAKE: ((State.ASLEEP,), State.LOADING),
    Event.LOST: ((State.LOADING, State.AWAKE, State.SLEEPING, State.ASLEEP), State.LOST),
    Event.GONE: ((State.SLEEPING, State.ASLEEP), State.COLD),
    Event.NO_ROOM: ((State.LOADING,), State.COLD),
    Event.UNLOAD: ((State.COLD, State.AWAKE, State.ASLEEP, State.FAILED, State.LOST), State.COLD),
}


@dataclass(slots=True)
class Model:
    key: Key
    keep_alive_s: float
    pinned: bool
    group: str
    used: int
    state: State = State.COLD
    bytes: int = 0
    running: int = 0
    jobs: int = 0
    """Tasks that work on its weights for long, such as tuning: it stays where it is while there are any."""
    ready: int = 0
    """When it was loaded or woke."""
    granted: bool = False
    """The bytes of its device are promised to it."""
    base: str = ""
    adapters: dict[str, Model] = field(default_factory=dict)
    """What lies on its weights: all of it sleeps, wakes and leaves as one, and is in use as long as any of it is."""

    @property
    def unit(self) -> list[Model]:
        return [self, *self.adapters.values()]

    @property
    def active(self) -> int:
        """How many requests run on it and its adapters, and how many of these are being loaded beside it."""
        coming = sum(each.state is State.LOADING and each.granted for each in self.adapters.values())
        return coming + sum(each.running for each in self.unit)

    @property
    def fixed(self) -> bool:
        return any(each.pinned or each.jobs for each in self.unit)

    @property
    def last_used(self) -> int:
        return max(each.used for each in self.unit)

    @property
    def freed(self) -> int:
        """Bytes that its device gets back when it leaves."""
        return sum(each.bytes for each in self.unit if each.holds)

    @property
    def holds(self) -> bool:
        """Whether it has the bytes of its device, or will have given them back soon."""
        return self.state in (State.AWAKE, State.SLEEPING) or (self.state is State.LOADING and self.granted)

    def due(self) -> int | None:
        """When it has been idle for long enough to sleep."""
        if self.base or self.state is not State.AWAKE or self.fixed or self.active or self.keep_alive_s < 0:
            return None
        return self.last_used + int(self.keep_alive_s * SECOND)
