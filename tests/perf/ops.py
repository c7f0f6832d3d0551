"""The ops of a transformer step on the CPU, each beside its torch reference and the limit of the same run.

The limit is the larger of bytes that must be read over the read bandwidth and operations over the rate of a large
matrix product, both measured in the same rounds. Weights, keys and values are larger than the caches.

    python tests/perf/ops.py [linear quantized decode prefill layers calls] [--rounds 7] [--json]
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from measure import machine
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from paged_rows import PAGE, Rows, make_rows

from llmos.drivers.ops.cpu.native import Native
from llmos.drivers.ops.cpu.ops import register_native
from llmos.drivers.ops.cpu.quantized import NativeQuantized
from llmos.drivers.ops.quantized import QuantizedWeight, Scheme
from llmos.drivers.ops.reference import register_reference
from llmos.drivers.ops.table import OpTable

RESULTS = Path(__file__).resolve().parents[2] / "docs" / "benchmarks" / "raw"
BEYOND_CACHES = 160_000_000
SHAPES = {
    "0.5B qkv": (1152, 896), "0.5B o": (896, 896), "0.5B gate_up": (9728, 896), "0.5B down": (896, 4864),
    "0.5B head": (151936, 896),
    "1.1B qkv": (2560, 2048), "1.1B o": (2048, 2048), "1.1B gate_up": (11264, 2048), "1.1B down": (2048, 5632),
    "1.1B head": (32000, 2048),
}  # fmt: skip
ROWS = (1, 4, 8, 16, 32, 64, 128, 512)
HEADS = {"0.5B": (14, 2, 64), "1.1B": (32, 4, 64), "8B": (32, 8, 128)}

Call = Callable[[], object]


@dataclass
class Case:
    """One thing computed in several ways; each call does it `count` times."""

    name: str
    bytes: float
    operations: float
    ways: Mapping[str, Call]
    count: int = 1
    seconds: dict[str, list[float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Figure:
    """Medians and best of the rounds, in microseconds; the limit and the shares of it that were reached."""

    name: str
    bandwidth_gb_s: float
    rate_gflop_s: float
    limit_us: float
    median_us: dict[str, float]
    best_us: dict[str, float]
    of_limit: dict[str, float]


def timed(call: Call) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


class Limits:
    """Read bandwidth and the rate of a large product in bfloat16, by torch."""

    def __init__(self) -> None:
        self._memory = torch.ones(32 << 20)
        weight, self._x = torch.randn(2048, 2048).bfloat16(), torch.randn(512, 2048).bfloat16()
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight, None)

    def bandwidth(self) -> float:
        return self._memory.nbytes / timed(self._memory.sum)

    def rate(self) -> float:
        product = torch.ops.mkldnn._linear_pointwise
        return 2 * 512 * 2048 * 2048 / timed(lambda: product(self._x, self._weight, None, "none", [], ""))


def measure(case: Case, limits: Limits, rounds: int) -> Figure:
    """All ways in turn, `rounds` times over, and the limits with them."""
    for way in case.ways.values():
        way()
    bandwidths, rates = [], []
    for _ in range(rounds):
        bandwidths.append(limits.bandwidth())
        rates.append(limits.rate())
        for name, way in case.ways.items():
            case.seconds.setdefault(name, []).append(timed(way) / case.count)
    bandwidth, rate = statistics.median(bandwidths), statistics.median(rates)
    limit = max(case.bytes / bandwidth, case.operations / rate)
    median = {name: statistics.median(samples) for name, samples in case.seconds.items()}
    best = {name: min(samples) for name, samples in case.seconds.items()}
    return Figure(
        case.name, bandwidth / 1e9, rate / 1e9, limit * 1e6, {name: s * 1e6 for name, s in median.items()},
        {name: s * 1e6 for name, s in best.items()}, {name: limit / s for name, s in median.items()},
    )  # fmt: skip


def table() -> OpTable:
    made = OpTable()
    register_reference(made)
    register_native(made)
    return made


def named(op: str) -> dict[str, Callable[..., Any]]:
    """The implementations of an op that serve bfloat16 here, the reference first."""
    ops, found = table(), {}
    for name in reversed(ops.names(op)):
        implementation = ops.implementation(op, name)
        if implementation.supports({"device": "cpu", "dtype": "bfloat16"})[0]:
            found[name] = implementation.call
    return found


def linear() -> Iterator[Case]:
    for name, (outs, ins) in SHAPES.items():
        copies = max(1, BEYOND_CACHES // (2 * outs * ins))
        weight = torch.randn(outs, ins).bfloat16()
        layers = {way: [make([weight.clone()], None) for _ in range(copies)] for way, make in named("linear").items()}
        for rows in ROWS if outs < 100_000 else ROWS[:5]:
            x, some = torch.randn(rows, ins).bfloat16(), copies if rows < 64 else max(1, copies // 8)
            ways = {way: _all(made[:some], x) for way, made in layers.items()}
            work = 2.0 * rows * outs * ins
            yield Case(f"linear {name} {outs}x{ins} M={rows}", 2 * outs * ins, work, ways, some)


def _all(layers: Sequence[Callable[[torch.Tensor], object]], x: torch.Tensor) -> Call:
    return lambda: [layer(x) for layer in layers]


SCHEMES = {"int4 g32": Scheme(4, 32), "int4 g128": Scheme(4, 128), "int8 g32": Scheme(8, 32), "int8 rows": Scheme(8, 0)}


def quantized() -> Iterator[Case]:
    """Weights of 4 and 8 bits with inputs of 8 bits, beside bfloat16 (oneDNN's, which is what torch does). The limit
    counts the bytes of the scheme and half the operations: two products of 8 bits take the time of one of 16."""
    native = Native()
    for name, (outs, ins) in {**SHAPES, "8B o": (4096, 4096)}.items():
        weight = torch.randn(outs, ins).bfloat16()
        dense = [named("linear")["onednn"]([weight], None) for _ in range(max(1, BEYOND_CACHES // weight.nbytes))]
        for scheme_name, scheme in SCHEMES.items():
            drawn = _drawn(outs, ins, scheme)
            copies = max(1, BEYOND_CACHES // drawn.nbytes)
            layers = [NativeQuantized(native, [drawn], None, torch.bfloat16) for _ in range(copies)]
            for rows in ROWS if outs < 100_000 else ROWS[:5]:
                x, some = torch.randn(rows, ins).bfloat16(), copies if rows < 64 else max(1, copies // 16)
                beside = [dense[i % len(dense)] for i in range(some)]
                ways = {"native": _all(layers[:some], x), "bfloat16": _all(beside, x)}
                work = 1.0 * rows * outs * ins
                yield Case(f"{scheme_name} {name} {outs}x{ins} M={rows}", layers[0].nbytes, work, ways, some)


def _drawn(outs: int, ins: int, scheme: Scheme) -> QuantizedWeight:
    shape, _ = scheme.numbers_of(outs, ins)
    numbers, scale = torch.randint(0, 256, shape, dtype=torch.uint8), torch.rand(outs, scheme.groups(ins)) / 100
    return QuantizedWeight(scheme, numbers, scale.half(), None, ins)


def decode() -> Iterator[Case]:
    for model, (heads, kv_heads, dim) in HEADS.items():
        for rows, length in ((1, 2048), (8, 512), (8, 2048), (32, 192)):
            yield attention(f"decode {model} rows={rows} context={length}", [(1, length)] * rows, heads, kv_heads, dim)


def prefill() -> Iterator[Case]:
    for model, (heads, kv_heads, dim) in HEADS.items():
        for queries, length in ((128, 128), (512, 512), (512, 2048), (512, 4096)):
            name = f"prefill {model} queries={queries} of {length}"
            yield attention(name, [(queries, length)], heads, kv_heads, dim)


def attention(name: str, rows: Sequence[tuple[int, int]], heads: int, kv_heads: int, dim: int) -> Case:
    """Against SDPA, which gets keys and values laid out contiguously, all rows of a batch padded to none."""
    (queries, length), batch = rows[0], len(rows)
    size = batch * length * kv_heads * dim * 4
    copies = max(1, BEYOND_CACHES // size) if queries == 1 else 1
    made = make_rows(rows, heads, kv_heads, dim, dim, torch.bfloat16, layers=1)
    cases = [copy.deepcopy(made) for _ in range(copies)]
    flat = [_flat(case, batch, queries) for case in cases]
    mask = torch.ones(queries, length, dtype=torch.bool).tril(length - queries)
    kind: dict[str, Any] = {} if queries == 1 else {"is_causal": True} if queries == length else {"attn_mask": mask}
    calls = named("paged_attention")
    ways: dict[str, Call] = {
        "sdpa": lambda: [F.scaled_dot_product_attention(*parts, enable_gqa=True, **kind) for parts in flat],
        "native": lambda: [calls["native"](*case.arguments(), dim**-0.5) for case in cases],
    }
    pairs = batch * queries * (length - (queries - 1) / 2)
    return Case(name, size, 4 * pairs * heads * dim, ways, copies)


def _flat(rows: Rows, batch: int, queries: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    q = rows.q.view(batch, queries, *rows.q.shape[1:]).transpose(1, 2)
    keys, values = (torch.stack(parts).transpose(1, 2).contiguous() for parts in (rows.keys, rows.values))
    return q, keys, values


def layers() -> Iterator[Case]:
    """Nothing here is limited by memory that is shared with the products; the limit is bytes in and out."""
    for tokens in (1, 8, 32, 512):
        for width, inner in ((896, 4864), (2048, 5632)):
            x, residual = torch.randn(tokens, width).bfloat16(), torch.randn(tokens, width).bfloat16()
            weight, gate_up = torch.randn(width).bfloat16(), torch.randn(tokens, 2 * inner).bfloat16()
            q, k = torch.randn(tokens, width // 64, 64).bfloat16(), torch.randn(tokens, 2, 64).bfloat16()
            angles = torch.randn(tokens, 64).bfloat16()
            pages = torch.zeros(2, tokens // PAGE + 1, 2, PAGE, 64).bfloat16()
            slots = torch.arange(tokens)
            arguments: dict[str, tuple[int, tuple[Any, ...]]] = {
                "rms_norm": (2 * x.nbytes, (x, weight, 1e-6)),
                "add_rms_norm": (4 * x.nbytes, (x, residual, weight, 1e-6)),
                "silu_mul": (gate_up.nbytes * 3 // 2, (gate_up,)),
                "rope_write": (2 * q.nbytes + 4 * k.nbytes, (q, k, angles, angles, k, *pages, slots)),
            }
            for op, (size, given) in arguments.items():
                ways = {way: _repeat(call, given) for way, call in named(op).items()}
                yield Case(f"{op} {width if op != 'silu_mul' else inner} tokens={tokens}", size, 0.0, ways, 20)


def _repeat(call: Callable[..., object], given: tuple[Any, ...]) -> Call:
    return lambda: [call(*given) for _ in range(20)]


def calls() -> Iterator[Case]:
    """What a call costs when there is next to nothing to do."""
    x, weight = torch.randn(1, 32).bfloat16(), torch.randn(32).bfloat16()
    rows = make_rows([(1, 1)], 1, 1, 32, 32, torch.bfloat16)
    q, k, angles = torch.randn(1, 1, 32).bfloat16(), torch.randn(1, 1, 32).bfloat16(), torch.randn(1, 32).bfloat16()
    pages, slots = torch.zeros(2, 1, 1, PAGE, 32).bfloat16(), torch.zeros(1, dtype=torch.int64)
    given: dict[str, tuple[Any, ...]] = {
        "rms_norm": (x, weight, 1e-6), "silu_mul": (x,), "rope_write": (q, k, angles, angles, k, *pages, slots),
        "write_kv": (k, k, *pages, slots), "paged_attention": (*rows.arguments(), 1.0),
    }  # fmt: skip
    for op, arguments in given.items():
        yield Case(f"call {op}", 0.0, 0.0, {way: _repeat(call, arguments) for way, call in named(op).items()}, 20)
    made = {way: make([torch.randn(32, 32).bfloat16()], None) for way, make in named("linear").items()}
    yield Case("call linear", 0.0, 0.0, {way: _repeat(layer, (x,)) for way, layer in made.items()}, 20)


SUITES = {
    "linear": linear, "quantized": quantized, "decode": decode, "prefill": prefill, "layers": layers, "calls": calls,
}  # fmt: skip


def line(figure: Figure) -> str:
    ways = "  ".join(
        f"{way} {us:9.1f} us {figure.of_limit[way]:5.2f} (best {figure.best_us[way]:.1f})"
        for way, us in figure.median_us.items()
    )
    head = f"{figure.name:44} {figure.bandwidth_gb_s:5.1f} GB/s {figure.rate_gflop_s:5.0f} GF/s"
    return f"{head}  limit {figure.limit_us:9.1f} us  {ways}"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("suite", nargs="*", help=f"which: {', '.join(SUITES)}; all by default")
    parser.add_argument("--only", default="", help="cases whose name holds this text")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", action="store_true", help="keep the raw figures under docs/benchmarks/raw")
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    facts = {**machine(), "torch": torch.__version__, "threads": options.threads}
    print(", ".join(f"{name} {value}" for name, value in facts.items()))
    figures, limits = [], Limits()
    with torch.inference_mode():
        for case in (case for name in options.suite or SUITES for case in SUITES[name]()):
            if options.only in case.name:
                figures.append(measure(case, limits, options.rounds))
                print(line(figures[-1]), flush=True)
    if options.json:
        path = RESULTS / f"ops-{str(facts['date']).replace(':', '').replace('+0000', 'Z')}.json"
        path.write_text(json.dumps({"machine": facts, "figures": [asdict(f) for f in figures]}, indent=1) + "\n")
        print(f"kept in {path}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
