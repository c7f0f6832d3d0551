"""The aims, and what was measured beside them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .setting import SHAPES

Parts = Mapping[str, Any]
"""What each part found, by its name."""


@dataclass(frozen=True)
class Target:
    """`must` is the floor, `goal` the aim; of some less is more. `value` raises KeyError where nothing was measured."""

    id: str
    what: str
    must: float
    goal: float
    value: Callable[[Parts], float | None]
    less: bool = False


@dataclass(frozen=True)
class Line:
    """One target with its value; `why` says why there is none."""

    target: Target
    value: float | None
    why: str = ""

    @property
    def state(self) -> str:
        if self.value is None:
            return "not measured"
        aims = self.target.must, self.target.goal
        must, goal = (self.value <= aim if self.target.less else self.value >= aim for aim in aims)
        return "goal" if goal else "must" if must else "missed"

    def told(self) -> dict[str, Any]:
        target = self.target
        return {
            "id": target.id, "what": target.what, "must": target.must, "goal": target.goal, "value": self.value,
            "state": self.state, "why": self.why,
        }  # fmt: skip


def copy_rate(parts: Parts) -> float:
    return float(parts["ceilings"]["copy_bytes_per_s"])


def alone(parts: Parts, model: str) -> float:
    return float(parts[f"decoding {model}"]["replayed"]["rate"])


def over(parts: Parts, model: str, peer: str) -> float:
    return alone(parts, model) / float(parts[f"generate {model}"][peer])


def attention(parts: Parts, case: str, by: str) -> float:
    return float(parts["attention"][case]["seconds"][by])


def decode_share(parts: Parts, case: str, by: str) -> float:
    return float(parts["attention"][case]["kv_bytes"]) / attention(parts, case, by) / copy_rate(parts)


def against(parts: Parts, peer: str) -> float:
    return float(parts["generate many"][peer]) / float(parts["serving"]["requests"]["seconds"])


def scaled(parts: Parts, model: str, rows: str) -> float:
    return float(parts[f"decoding {model}"]["rates"][rows]) / alone(parts, model)


def serving(parts: Parts, suite: str, over: str, under: str) -> float:
    found = parts["serving"][suite]
    return float(found[over]) / float(found[under])


def weight_share(parts: Parts, model: str) -> float:
    return SHAPES[model].read_bytes * alone(parts, model) / copy_rate(parts)


def products(parts: Parts, width: str, tokens: str) -> float:
    found = parts["quantized"][width][tokens]
    return float(found["library"]) / float(found["ours"])


def selected(parts: Parts, width: str) -> float:
    """The least gain over the library among all buckets of tokens, each by what is chosen for it."""
    return min(float(each["library"]) / float(each["ours"]) for each in parts["quantized"][f"{width} buckets"].values())


def beside(parts: Parts, tokens: str) -> float | None:
    """Over the best of the other kernels for 4 bits that are installed; None where none is."""
    others = [float(each) for each in parts["narrow peers"][tokens].values()]
    return min(others) / float(parts["quantized"]["w4a16"][tokens]["ours"]) if others else None


def product_share(parts: Parts, width: str) -> float:
    found = parts["quantized"][width]["1"]
    return float(found["bytes"]) / float(found["ours"]) / copy_rate(parts)


def narrowed(parts: Parts, kind: str, model: str, rows: str) -> float:
    wide = alone(parts, model) if rows == "1" else float(parts[f"decoding {model}"]["rates"][rows])
    return float(parts[f"{kind} {model}"]["rates"][rows]) / wide


def load_peak(parts: Parts, model: str, where: str) -> float | None:
    load = parts[f"w4 {model}"]["load"]
    return float(load[where]) / float(load["weights"]) if where in load else None


def wake_share(parts: Parts) -> float:
    woke = parts["serving"]["wake"]
    return float(woke["bytes"]) / float(woke["wake_seconds"]) / float(parts["ceilings"]["to_device_bytes_per_s"])


def targets(models: Sequence[str], tiny: bool, by: str) -> list[Target]:
    """For these models, small to large; `by` is the implementation of attention that is aimed with."""
    small, large = models[0], models[-1]
    decode = ("decode 64 x 2048", "decode 1 x 32768") if not tiny else ("decode 3 x 40", "decode 3 x 40")
    prefill = "prefill 4096" if not tiny else "prefill 48"
    rows = ("16", "64") if not tiny else ("2", "3")
    few = ("1", "8", "16", "64") if not tiny else ("1", "3")
    four_bits, eight_bits = ((1.6, 1.5, 1.3, 0.8), (2.1, 2.1, 1.7, 1.2)), ((1.35, 1.3, 1.2, 0.8), (1.6, 1.6, 1.5, 1.0))
    over_generate = {"0.6b": (4.0, 7.0), "1.7b": (2.5, 3.8), "8b": (1.5, 3.0), "tiny": (1.0, 1.0)}
    return [
        Target("G1", f"{large} decode, 1 row: weight bytes over copy", 0.60, 0.80, lambda p: weight_share(p, large)),
        *(
            Target("G2", f"{model} decode, 1 row over generate", *over_generate[model],
                   lambda p, m=model: over(p, m, "dynamic"))
            for model in models
        ),
        *(
            Target("G3", f"{model} decode, 1 row over static cache and compile", 1.0, 1.2,
                   lambda p, m=model: over(p, m, "static"))
            for model in models
        ),
        Target("G4", "64 requests over generate_batch", 2.0, 4.0, lambda p: against(p, "batch_seconds")),
        Target("G5", "64 requests over padded generate", 2.5, 5.0, lambda p: against(p, "padded_seconds")),
        Target("G6", f"{large}, {rows[0]} rows over 1", 11.0, 14.0, lambda p: scaled(p, large, rows[0])),
        Target("G6", f"{large}, {rows[1]} rows over 1", 33.0, 45.0, lambda p: scaled(p, large, rows[1])),
        Target("G7", f"{small} replayed over eager", 3.0, 5.0,
               lambda p: alone(p, small) / float(p[f"decoding {small}"]["eager"]["rate"])),
        Target("G8", f"{large} busy share", 0.93, 0.97, lambda p: p[f"decoding {large}"]["busy"]),
        Target("G9", f"paged {decode[0]}: bytes over copy", 0.70, 0.85, lambda p: decode_share(p, decode[0], by)),
        Target("G9", f"paged {decode[1]}: bytes over copy", 0.50, 0.70, lambda p: decode_share(p, decode[1], by)),
        Target("G10", f"paged {decode[0]} over SDPA contiguous", 1.0, 1.5,
               lambda p: attention(p, decode[0], "sdpa") / attention(p, decode[0], by)),
        Target("G11", f"paged {prefill} over SDPA causal", 0.45, 0.7,
               lambda p: attention(p, prefill, "sdpa") / attention(p, prefill, by)),
        *(
            Target(id, f"{width} over bf16 product, {tokens} tokens", must, goal,
                   lambda p, w=width, t=tokens: products(p, w, t))
            for id, width, aims in (("G12", "w4a16", four_bits), ("G13", "w8a16", eight_bits))
            for tokens, must, goal in zip(few, *aims, strict=False)
        ),
        *(
            Target(id, f"{width} over bf16 product, least of all buckets", 0.8, 1.0, lambda p, w=width: selected(p, w))
            for id, width in (("G12", "w4a16"), ("G13", "w8a16"))
        ),
        *(
            Target("G12", f"w4a16 over the best other kernel, {tokens} tokens", 1.0, 1.2,
                   lambda p, t=tokens: beside(p, t))
            for tokens in dict.fromkeys((few[0], few[-2]))
        ),
        Target("G12", "w4a16, 1 token: bytes over copy", 0.35, 0.5, lambda p: product_share(p, "w4a16")),
        *(
            Target("G14", f"fp8 over bf16 product, {tokens} tokens", 1.3, goal,
                   lambda p, t=tokens: products(p, "fp8", t))
            for tokens, goal in ((("16", 1.45), ("4096", 1.5)) if not tiny else (("3", 1.45), ("20", 1.5)))
        ),
        *(
            Target("G15", f"{large} of 4 bits over bf16, {count} rows", must, goal,
                   lambda p, c=count: narrowed(p, "w4", large, c))
            for count, must, goal in (("1", 1.4, 1.75), (rows[1], 0.95, 1.2))
        ),
        Target("G15", f"{large} of fp8 over bf16, {rows[1]} rows", 1.0, 1.3,
               lambda p: narrowed(p, "fp8", large, rows[1])),
        Target("G16", "first token, prefix known over not", 4.0, 8.0, lambda p: serving(p, "prefix", "miss", "hit")),
        Target("G17", "8 adapters mixed over base", 0.75, 0.88, lambda p: serving(p, "adapters", "mixed", "base")),
        Target("G18", "8 adapters mixed over one after another", 3.0, 6.0,
               lambda p: serving(p, "adapters", "mixed", "one after another")),
        Target("G19", "wake over load", 8.0, 20.0, lambda p: serving(p, "wake", "load_seconds", "wake_seconds")),
        Target("G19", "wake: bytes over pinned copy", 0.6, 0.85, wake_share),
        Target("G20", "p95 between tokens, long prompt over alone", 2.5, 1.6,
               lambda p: serving(p, "between", "during_p95", "alone_p95"), less=True),
        *(
            Target("G22", f"{large} of 4 bits, {what}'s peak at load over size", 1.3, 1.1,
                   lambda p, w=where: load_peak(p, large, w), less=True)
            for what, where in (("device", "device_peak"), ("host", "host_peak"))
        ),
    ]  # fmt: skip


def lines(parts: Parts, failed: Mapping[str, str], aims: Sequence[Target]) -> list[Line]:
    """Each target with what was measured, or why nothing was."""
    found = []
    for target in aims:
        try:
            value = target.value(parts)
            why = "" if value is not None else "this device has no such figure"
        except (KeyError, TypeError, ZeroDivisionError) as error:
            value = None
            why = f"no {error.args[0]}" if isinstance(error, KeyError) else str(error)
        if value is None and failed:
            why += f"; failed: {', '.join(failed)}"
        found.append(Line(target, value, why))
    tuned = Target("G21", "decode kept while a fine-tune runs", 0.7, 0.85, lambda _: None)
    return [*found, Line(tuned, None, "there is no fine-tuning yet")]
