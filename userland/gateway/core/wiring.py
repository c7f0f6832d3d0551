"""What all handlers share: settings, keys, sessions, models, limits, instruments."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge
from starlette.routing import BaseRoute

from ..native.past import Past
from .keys import KeyStore
from .limits import Limiter
from .models import Models
from .sessions import Sessions
from .settings import Settings
from .store import Store
from .tracing import Tracer

RouteMaker = Callable[[], list[BaseRoute]]
"""What each package of routes offers: `routes.routes`."""


class Instruments(Protocol):
    """What is counted of HTTP: `metrics.Instruments`."""

    registry: CollectorRegistry
    streams: Gauge
    connections: Gauge
    disconnects: Counter
    rejected: Counter

    def request(self, route: str, method: str, status: int, seconds: float) -> None:
        """A request has ended; `route` is the template of its path."""

    def overhead(self, route: str, seconds: float) -> None:
        """Time spent here and not in the kernel."""


@dataclass
class State:
    """What changes while the gateway runs."""

    draining: bool = False
    running: int = 0
    """Requests under way."""
    idle: asyncio.Event = field(default_factory=asyncio.Event)
    """Set while none is."""

    def __post_init__(self) -> None:
        self.idle.set()

    def begin(self) -> None:
        """A request has come."""
        self.running += 1
        self.idle.clear()

    def end(self) -> None:
        """A request has been answered."""
        self.running -= 1
        if not self.running:
            self.idle.set()


@dataclass(frozen=True)
class Gateway:
    """One gateway; `gateway_of(request)` in a handler."""

    settings: Settings
    keys: KeyStore
    sessions: Sessions
    models: Models
    instruments: Instruments
    limits: Limiter
    store: Store
    home: Path
    state: State = field(default_factory=State)
    past: Past = field(default_factory=Past)
    tracer: Tracer | None = None
    """Told of every request that has ended."""
