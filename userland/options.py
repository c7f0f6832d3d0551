"""What programs pass as plain keywords, and what it becomes: sampling fields, load options."""

from __future__ import annotations

import difflib
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypedDict, TypeVar

import msgspec

from llmos.syscalls.errors import BadArgument
from llmos.syscalls.types import Grammar, LoadOptions, Quant, Sampling, Speculative, WorkClass

S = TypeVar("S", bound=msgspec.Struct)

SamplingLike = Sampling | Literal["model"] | None
"""A prepared `Sampling`; "model" for the model's own generation settings; None for the defaults."""


class CallOptions(TypedDict, total=False):
    """Arguments that every request takes."""

    timeout: float
    """Seconds until it ends with TimedOut."""
    priority: int
    work_class: WorkClass | Literal["interactive", "batch", "background"]
    key: str


class SamplingOptions(TypedDict, total=False):
    """The fields of `Sampling`, as plain keywords."""

    max_tokens: int
    temperature: float
    top_k: int
    top_p: float
    min_p: float
    repetition_penalty: float
    presence_penalty: float
    frequency_penalty: float
    logit_bias: dict[int, float]
    seed: int | None
    stop: str | list[str]
    stop_token_ids: list[int]
    ignore_eos: bool
    n: int
    best_of: int | None
    beams: int
    logprobs: int | None
    prompt_logprobs: int | None
    grammar: Grammar | dict[str, Any] | None
    speculative: Speculative | dict[str, Any] | None


class InferOptions(SamplingOptions, CallOptions, total=False):
    """Sampling fields and arguments of the request."""


class LoadFields(TypedDict, total=False):
    """The fields of `LoadOptions`, as plain keywords."""

    dtype: str
    kv_dtype: str
    max_context: int | None
    quant: Quant | dict[str, Any] | str | None
    """Fields, or a name such as `w8` or `w4a16-g64` (`quant_named`)."""
    adapter: bool
    name: str
    replace: bool
    keep_alive: float
    pin: bool
    group: str
    draft: str | Path
    prefix_cache: bool
    rung: str
    devices: list[str]


_STRUCTS: Mapping[str, type[msgspec.Struct]] = {"grammar": Grammar, "speculative": Speculative, "quant": Quant}
_COMMON = frozenset(CallOptions.__annotations__)


def split(options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """(arguments of the request, the other ones)."""
    common = {name: value for name, value in options.items() if name in _COMMON}
    return common, {name: value for name, value in options.items() if name not in _COMMON}


def fill(base: S, fields: Mapping[str, Any], what: str) -> S:
    """`base` with these fields; maps become the Structs they stand for.

    Raises:
        BadArgument: there is no such field.
    """
    known = base.__struct_fields__
    for name in fields:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"it takes {', '.join(known)}"
            raise BadArgument(f"{what}: unknown argument {name!r}; {hint}", name=name, want=", ".join(known))
    given = {name: _plain(name, value, what) for name, value in fields.items()}
    return msgspec.structs.replace(base, **given) if given else base


def _plain(name: str, value: Any, what: str) -> Any:
    if name == "stop" and isinstance(value, str):
        return [value]
    if name == "quant" and isinstance(value, str):
        return quant_named(value)
    if name in _STRUCTS and isinstance(value, Mapping):
        try:
            return msgspec.convert(dict(value), _STRUCTS[name])
        except msgspec.ValidationError as error:
            raise BadArgument(f"{what}: {name}: {error}", name=name, got=repr(value)[:80]) from None
    return value


_QUANT = re.compile(r"(?:w(?P<width>[48])(?:a(?P<inputs>8|16))?|(?P<float>fp8))(?:-g(?P<group>0|32|64|128))?")


def quant_named(name: str) -> Quant:
    """What a short name means: `w8`, `w4` (bits of weights), `w4a16`, `w8a8` (and of activations), `fp8`; with `-g64`
    also how many inputs share a scale (by default 128, all of them for fp8).

    Raises:
        BadArgument: it is none of these.
    """
    found = _QUANT.fullmatch(name)
    if found is None:
        want = "w4, w8, w4a16, w8a16, w4a8, w8a8 or fp8, and -g0, -g32, -g64 or -g128 behind it"
        raise BadArgument(f"quant: {name[:40]!r} is unknown; write {want}", name="quant", got=name[:40], want=want)
    fields: dict[str, Any] = {"group": int(found["group"] or (0 if found["float"] else 128))}
    if found["float"]:
        return Quant(kind="float", **fields)
    if found["inputs"]:
        fields["activations"] = "int8" if found["inputs"] == "8" else "model"
    return Quant(width=int(found["width"]), **fields)  # type: ignore[arg-type]


def deadline_in(timeout: float | None) -> int | None:
    """The deadline `timeout` seconds from now, in monotonic nanoseconds."""
    return None if timeout is None else time.monotonic_ns() + int(timeout * 1e9)


DEFAULT_SAMPLING = Sampling()
DEFAULT_LOAD = LoadOptions()


def sampling_of_model(config: Mapping[str, Any]) -> Sampling:
    """What a `generation_config.json` of transformers asks for."""
    fields: dict[str, Any] = {}
    if config.get("max_new_tokens"):
        fields["max_tokens"] = config["max_new_tokens"]
    if config.get("do_sample"):
        fields["temperature"] = config.get("temperature") or 1.0
        fields["top_k"] = config.get("top_k", 50) or 0
        for name in ("top_p", "min_p"):
            if config.get(name) is not None:
                fields[name] = config[name]
    if config.get("repetition_penalty"):
        fields["repetition_penalty"] = config["repetition_penalty"]
    if (config.get("num_beams") or 1) > 1:
        fields["beams"] = config["num_beams"]
    return Sampling(**fields)
