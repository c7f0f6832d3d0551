"""Refuses sampling that makes no sense or that a device does not offer, so that each driver need not spell it out."""

from __future__ import annotations

import math
from collections.abc import Container, Mapping

from llmos.syscalls.errors import BadArgument, NotSupported

from .contract import SamplingParams

_ABOVE_ZERO = math.ulp(0)
_RANGES: Mapping[str, tuple[float, float, str]] = {
    "max_tokens": (0, math.inf, "0 or more"),
    "temperature": (0, math.inf, "0 or more"),
    "top_k": (0, math.inf, "0 or more"),
    "top_p": (_ABOVE_ZERO, 1, "above 0, at most 1"),
    "min_p": (0, 1, "0 to 1"),
    "repetition_penalty": (_ABOVE_ZERO, math.inf, "above 0"),
    "presence_penalty": (-2, 2, "-2 to 2"),
    "frequency_penalty": (-2, 2, "-2 to 2"),
    "n": (1, math.inf, "1 or more"),
    "best_of": (1, math.inf, "1 or more"),
    "beams": (1, math.inf, "1 or more"),
    "logprobs": (0, 100, "0 to 100"),
    "prompt_logprobs": (0, 100, "0 to 100"),
}
OPTIONS: Mapping[str, object] = {
    "n": 1, "best_of": None, "beams": 1, "logprobs": None, "prompt_logprobs": None, "grammar": None,
    "speculative": None,
}  # fmt: skip
"""What a device may leave out, and the value that does not ask for it."""


def check(sampling: SamplingParams, offers: Container[str] = ()) -> None:
    """Check sampling for a device that offers some of `OPTIONS`.

    Raises:
        BadArgument: a value is out of its range.
        NotSupported: an option is asked for that the device does not offer.
    """
    for name, (low, high, want) in _RANGES.items():
        value = getattr(sampling, name)
        if value is not None and not low <= value <= high:
            raise BadArgument(f"{name} is {value}; expected {want}", name=name, got=str(value), want=want)
    for name, unasked in OPTIONS.items():
        value = getattr(sampling, name)
        if value != unasked and name not in offers:
            raise NotSupported(f"{name}={value} is not offered by this device", why=f"the driver has no {name}")
