"""Who asks: the key behind a request, what it may do and how much."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from llmos.syscalls.errors import Denied

if TYPE_CHECKING:
    from starlette.requests import Request

    from .wiring import Gateway

PRIORITY_MOST = 100


@dataclass(frozen=True, slots=True)
class KeyLimits:
    """What a key may use; 0 is no limit of its own."""

    tokens_per_minute: int = 0
    requests_per_minute: int = 0
    concurrent: int = 0
    priority_max: int = PRIORITY_MOST


@dataclass(frozen=True, slots=True)
class Caller:
    """A key, or somebody of this machine without one (then `key` is empty)."""

    key: str
    user: str
    tenant: str
    scopes: frozenset[str]
    models: tuple[str, ...] = ()
    """Patterns of the models it may use; none is all."""
    limits: KeyLimits = KeyLimits()

    @property
    def admin(self) -> bool:
        """Sees and may do everything."""
        return "admin" in self.scopes

    def has(self, scope: str) -> bool:
        """Whether it may do what needs this scope."""
        return scope in self.scopes or self.admin

    def need(self, scope: str) -> None:
        """Raises Denied: the caller has not this scope."""
        if not self.has(scope):
            have = ", ".join(sorted(self.scopes)) or "none"
            raise Denied(f"this needs a key with the scope {scope!r}; this one has {have}", missing=scope)

    def may_use(self, model: str) -> bool:
        """Whether the key is good for a model of that name."""
        return not self.models or any(fnmatchcase(model, pattern) for pattern in self.models)

    def priority(self, wanted: int) -> int:
        """The priority it gets: higher runs earlier."""
        if self.admin:
            return wanted
        return max(-PRIORITY_MOST, min(wanted, self.limits.priority_max))


def caller_of(request: Request) -> Caller:
    """Who asks."""
    caller: Caller = request.scope["state"]["caller"]
    return caller


def counts_load(request: Request) -> Callable[[float], None]:
    """What `Models` tells how long the request waited for its model to be loaded: no overhead of the gateway."""
    state = request.scope["state"]

    def add(seconds: float) -> None:
        state["load_s"] = state.get("load_s", 0.0) + seconds

    return add


def gateway_of(request: Request) -> Gateway:
    """The gateway that serves the request."""
    gateway: Gateway = request.scope["state"]["gateway"]
    return gateway


def request_id(request: Request) -> str:
    """The id of the request: the client's own where it gave one, else made here."""
    found: str = request.scope["state"]["request_id"]
    return found
