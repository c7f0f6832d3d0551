"""How a request ended, as reasons: so that `why` also answers for one that is over. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from llmos.syscalls.errors import (
    Busy, Cancelled, Denied, LlmosError, NoDeviceMemory, NoResources, OverQuota, TimedOut, TooLarge, Unavailable,
)  # fmt: skip
from llmos.syscalls.types import Inference, Number, Reason

_REFUSALS = (Busy, Denied, NoDeviceMemory, NoResources, OverQuota, TooLarge, Unavailable)
_NS = 1e9
_LONG = ("by_whom", "cause", "text", "why")
"""Fields that are sentences, and stand in the text."""


def answered(call: str, value: Any, seconds: float) -> Reason:
    """It was answered `seconds` after it had arrived."""
    numbers: dict[str, Number] = {"total_s": seconds}
    text = f"{call} was answered after {seconds:.3f} s"
    if isinstance(value, Inference):
        timing, usage = value.timing, value.usage
        numbers = {
            "total_s": timing.total / _NS,
            "waited_s": timing.queued / _NS,
            **({"first_token_s": timing.first / _NS} if timing.first else {}),
            "prompt_tokens": usage.prompt_tokens,
            "cached_tokens": usage.cached_tokens,
            "new_tokens": usage.new_tokens,
        }
        text = (
            f"{call} was answered after {timing.total / _NS:.3f} s, of which it waited {timing.queued / _NS:.3f} s: "
            f"{usage.new_tokens} new tokens for a prompt of {usage.prompt_tokens}"
        )
    return Reason(code="request.done", text=text, numbers=numbers)


def ended(call: str, error: LlmosError, seconds: float) -> list[Reason]:
    """It ended with an error: what the kernel had decided before that, then the error with its numbers."""
    before = [reason for told in error.reasons if (reason := _reason_of(told)) is not None]
    name = type(error).__name__
    numbers: dict[str, Number] = {"after_s": seconds}
    numbers |= {field: value for field, value in error.fields().items() if value and field not in _LONG}
    text = f"{call} ended with {name} after {seconds:.3f} s: {error}"
    if isinstance(error, Cancelled):
        reason = Reason(code="request.cancelled", text=text, numbers=numbers, rule=name)
    elif isinstance(error, TimedOut):
        reason = Reason(code="request.expired", text=text, numbers=numbers, rule=name)
    elif isinstance(error, _REFUSALS):
        reason = Reason(code="request.refused", text=text, numbers=numbers, rule=name)
    else:
        reason = Reason(code="request.failed", text=text, numbers=numbers, rule=name)
    return [*before, reason]


def _reason_of(told: Any) -> Reason | None:
    """A reason that an error carries as a map; None for what is none, as a host may send anything."""
    try:
        return msgspec.convert(told, Reason)
    except msgspec.ValidationError:
        return None
