"""Plain English to a command line, by a small model that is never trusted: the real parser checks what it says.

A request is refused when the model says it does not know, when what it says is no command, when a name in it does not
stand in the request, and when the model is less sure than the threshold that was measured when it was trained.
"""

from __future__ import annotations

import json
import math
from argparse import Namespace
from dataclasses import dataclass

from llmos.syscalls.errors import LlmosError

from llmos.userland.objects import Model, System

from .parser import HelpRequested, UsageError, parse_line
from .command import Argument, Command, Kind, Option

UNKNOWN = "unknown"
DEFAULT_THRESHOLD = 0.5
MAX_TOKENS = 96
_COPIED = frozenset(
    {Kind.MODEL_PATH, Kind.MODEL, Kind.PATH, Kind.TASK, Kind.ID, Kind.OBJECT, Kind.VERSION, Kind.NAME, Kind.TEXT}
)
"""Kinds of values that can only come from the request."""


@dataclass(frozen=True)
class Suggestion:
    """A command line that parses, and how sure the model is of it (0 to 1)."""

    line: str
    command: Command
    values: Namespace
    confidence: float


@dataclass(frozen=True)
class Refusal:
    """Why nothing is suggested."""

    why: str
    confidence: float


def threshold(system: System, path: str) -> float:
    """The confidence below which answers of this model are refused, from its manifest."""
    try:
        manifest = json.loads(system.read(f"{path.rstrip('/')}/manifest.json"))
    except LlmosError:
        return DEFAULT_THRESHOLD
    value = manifest
    for name in ("metrics", "confidence", "threshold"):
        value = value.get(name) if isinstance(value, dict) else None
    return float(value) if isinstance(value, (int, float)) else DEFAULT_THRESHOLD


def translate(model: Model, request: str, limit: float) -> Suggestion | Refusal:
    """Ask the model for the command that `request` means.

    Args:
        limit: the least confidence that is accepted.

    Raises:
        LlmosError: the model could not be run.
    """
    message = [{"role": "user", "content": request.strip()}]
    inference = model.infer(message, max_tokens=MAX_TOKENS, temperature=0.0, logprobs=0)
    choice = inference.choices[0]
    confidence = math.exp(sum(token.logprob for token in choice.logprobs or ()))
    line = choice.text.strip()
    if line == UNKNOWN or choice.reason != "stop":
        return Refusal(f"I do not understand {request!r}. Say what you want to see or do, or type help.", confidence)
    try:
        command, values = parse_line(line)
    except (UsageError, HelpRequested):
        return Refusal(f"I do not understand {request!r}: my answer was no command. Type help to see them.", confidence)
    if confidence < limit:
        text = f"I am not sure what {request!r} means ({confidence:.0%}, {limit:.0%} are needed). Did you mean: {line}"
        return Refusal(text, confidence)
    name = invented(command, values, request)
    if name:
        text = f"I am not sure what {request!r} means: {name!r} does not stand in it. I read: {line}"
        return Refusal(text, confidence)
    return Suggestion(line, command, values, confidence)


def invented(command: Command, values: Namespace, request: str) -> str:
    """A name or text of the command that does not stand in the request; empty when all do.

    A model that copies badly is the likeliest to be wrong and sure of it.
    """
    said = " ".join(request.lower().split())
    parts: list[Argument | Option] = [*command.arguments, *command.options]
    for part in parts:
        given = getattr(values, part.name, None)
        for value in given if isinstance(given, list) else [given]:
            if part.kind not in _COPIED or not isinstance(value, str):
                continue
            if value.lower() not in said and value.lower().removeprefix("/models/") not in said:
                return value
    return ""
