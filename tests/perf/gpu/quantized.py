"""Products with weights of 4 and 8 bits against the library's in bfloat16: G12, G13, G14; what else was tried.

    python tests/perf/gpu/quantized.py [KIND...] [--tokens N...] [--keep FILE]

measures every layer of the large model by every choice that its kernels have, and writes what was best for this GPU
into a table that the kernels read (`drivers/ops/triton/quantized_choice.py`), a layer after the other; choices where
none beats what is planned are left out. All kinds take about half an hour. `--tiny --device cpu` tries it in Triton's
interpreter.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from gpu.clock import copies, seconds
from gpu.setting import SHAPES, Found, Setting, Shape
from gpu.tables import op_table
from llmos.drivers.ops.quantized import QuantizedWeight, Scheme, round_to_nearest
from llmos.drivers.ops.table import OpTable
from torch.nn import functional as F

DTYPE = torch.bfloat16
TABLE = Path(__file__).resolve().parents[3] / "drivers" / "ops" / "triton" / "choices.json"
SCHEMES = {"w4a16": Scheme(4, 128), "w8a16": Scheme(8, 0)}
EIGHT, FLOAT = Scheme(8, 128), Scheme(8, 0, "float")
KINDS = {
    "w4a16-g128": (Scheme(4, 128), "model"), "w4a16-g32": (Scheme(4, 32), "model"), "w8a16-g0": (Scheme(8, 0), "model"),
    "w8a16-g128": (EIGHT, "model"), "w8a8-g128": (EIGHT, "int8"), "w4a8-g128": (Scheme(4, 128), "int8"),
}  # fmt: skip
"""What tables are made of: weights and what inputs are rounded to."""
GAIN = 0.97
"""A choice is kept when it takes at most so much of the planned one's time."""
TRIED_ROUNDS = 3
TRIED_UNTIL_S = 60.0
"""After so long nothing more is compiled to be tried in a run of the bench."""


def aimed(setting: Setting) -> tuple[int, int]:
    """Outputs and inputs of the layer that the aims are about."""
    return setting.pick(14_336, 48), setting.pick(4096, 64)


def few_tokens(setting: Setting) -> tuple[int, ...]:
    """Their numbers of tokens."""
    return (1, 3) if setting.tiny else (1, 8, 16, 64)


def run(setting: Setting) -> Iterator[Found]:
    """The shape that the aims are about, and every bucket; then what was planned beside everything that could be, for
    as long as there is time."""
    (outs, ins), few, many = aimed(setting), few_tokens(setting), setting.pick(4096, 20)
    buckets = (1, 8, 16, 32, 64, 128, 256, 512) if not setting.tiny else (1, 20)
    table, began = op_table(setting.device), time.monotonic()
    plain = {tokens: library(setting, outs, ins, tokens) for tokens in sorted({*few, *buckets, many})}
    made: dict[str, Layers] = {}
    for name, scheme in (*SCHEMES.items(), ("w8a8", EIGHT), ("fp8", FLOAT)):
        activations = {"w8a8": "int8", "fp8": "float8"}.get(name, "model")
        made[name] = layers = Layers(setting, table, scheme, outs, ins, activations)
        tokens = few if name in SCHEMES else (setting.pick(16, 3), many)
        yield {name: {str(count): layers.told(count, plain[count]) for count in tokens}}
    yield {"fp8 behind a norm": {str(count): made["fp8"].behind_norm(table, count) for count in tokens}}
    for name in SCHEMES:
        yield {f"{name} buckets": {str(count): made[name].told(count, plain[count]) for count in buckets}}
    found: Found = {}
    for name, count in ((name, count) for count in few for name in SCHEMES if made[name].kernels):
        found[f"{name} {count}"] = made[name].best(count, TRIED_ROUNDS, began + TRIED_UNTIL_S)
        yield {"tried": found}


def library(setting: Setting, outs: int, ins: int, tokens: int) -> float:
    """Seconds of the library's product."""
    count = copies(2 * outs * ins, setting.device)
    weights = [torch.randn(outs, ins, device=setting.device, dtype=DTYPE) for _ in range(count)]
    x = torch.randn(tokens, ins, device=setting.device, dtype=DTYPE)
    return seconds([lambda w=w: F.linear(x, w) for w in weights], setting.device)


def drawn(scheme: Scheme, outs: int, ins: int, device: str) -> QuantizedWeight:
    """Random weights, rounded where they are."""
    return round_to_nearest(torch.randn(outs, ins, device=device) * ins**-0.5, scheme)


class Layers:
    """So many layers of one shape that no cache holds them."""

    def __init__(self, setting: Setting, table: OpTable, scheme: Scheme, outs: int, ins: int, activations: str) -> None:
        self.setting, self.ins = setting, ins
        spec = {**asdict(scheme), "activations": activations, "device": setting.device, "dtype": "bfloat16"}
        chosen = table.choose("quantized_linear", spec).implementation
        weight = drawn(scheme, outs, ins, setting.device)
        count = copies(weight.nbytes, setting.device)
        self.name = chosen.name
        self.made = [chosen.call([weight], None, DTYPE, activations)]
        for _ in range(count - 1):
            self.made.append(chosen.call([drawn(scheme, outs, ins, setting.device)], None, DTYPE, activations))

    @property
    def kernels(self) -> bool:
        """Whether there is something to choose."""
        return hasattr(self.made[0], "choice")

    def x(self, tokens: int) -> torch.Tensor:
        return torch.randn(tokens, self.ins, device=self.setting.device, dtype=DTYPE)

    def seconds(self, tokens: int) -> float:
        x = self.x(tokens)
        with torch.no_grad():
            return seconds([lambda layer=layer: layer(x) for layer in self.made], self.setting.device)

    def behind_norm(self, table: OpTable, tokens: int) -> Found:
        """Seconds of a norm and the product, where the norm rounds for the product, and where that does it."""
        spec = {"device": self.setting.device, "dtype": "bfloat16"}
        x, residual, weight = self.x(tokens), self.x(tokens), self.x(1)[0]
        found: Found = {}
        for name, op in (("together", "add_rms_norm_float8"), ("apart", "add_rms_norm")):
            norm = table.choose(op, spec).implementation.call
            runs = [lambda layer=layer, norm=norm: layer(norm(x, residual, weight, 1e-6)[0]) for layer in self.made]
            with torch.no_grad():
                found[name] = seconds(runs, self.setting.device)
        return found

    def told(self, tokens: int, library: float) -> Found:
        """What a product takes by what is chosen, beside the library's seconds, and the bytes that it reads."""
        layer = self.made[0]
        return {"library": library, "ours": self.seconds(tokens), "by": self.how(tokens), "bytes": layer.nbytes}

    def how(self, tokens: int) -> str:
        return str(self.made[0].choice(tokens)) if self.kernels else self.name

    def best(self, tokens: int, rounds: int, until: float = math.inf) -> dict[str, Any]:
        """The fields of the quickest choice and its seconds, beside those of the planned one (none where that fails).
        What does not compile or asks for too much is passed over, and so are others once the time is `until`."""
        from llmos.drivers.ops.triton.quantized_choice import candidates, told
        from triton.compiler.errors import CompilationError
        from triton.runtime.errors import OutOfResources, PTXASError

        x, device = self.x(tokens), self.setting.device
        first, *others = candidates(self.made[0].layer, tokens)
        found: dict[Any, float] = {}
        for choice in (first, *others):
            if found and time.monotonic() > until:
                break
            runs = [lambda layer=layer, choice=choice: layer.computed(x, choice) for layer in self.made]
            try:
                found[choice] = seconds(runs, device, rounds=rounds)
            except (CompilationError, OutOfResources, PTXASError, RuntimeError):
                continue
        best = min(found, key=found.__getitem__)
        planned = found.get(first, math.inf)
        return {"choice": told(best), "seconds": found[best], "planned": planned, "tried": len(found)}


def layers_of(shape: Shape) -> Iterator[tuple[int, int]]:
    """Outputs and inputs of the products of a model, merged as the engine merges them."""
    query, key = shape.heads * shape.width, shape.kv_heads * shape.width
    yield query + 2 * key, shape.hidden
    yield shape.hidden, query
    yield 2 * shape.inner, shape.hidden
    yield shape.hidden, shape.inner


def tabled(setting: Setting, kinds: Iterable[str], buckets: Iterable[int]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The key of each layer, and what beat the plan for it at these numbers of tokens, as the kernels read it."""
    table = op_table(setting.device)
    for kind in kinds:
        scheme, activations = KINDS[kind]
        for outs, ins in layers_of(SHAPES[setting.large]):
            made = Layers(setting, table, scheme, outs, ins, activations)
            best = {tokens: made.best(tokens, TRIED_ROUNDS) for tokens in buckets}
            for tokens, each in best.items():
                print(kind, outs, ins, tokens, each, flush=True)
            better = {tokens: each for tokens, each in best.items() if each["seconds"] < GAIN * each["planned"]}
            yield made.made[0].layer.key, {str(tokens): each["choice"] for tokens, each in better.items()}


def keep(path: Path, device: str, key: str, found: dict[str, Any]) -> None:
    """Put what was found for one layer into the table of all GPUs, beside what is there for other numbers of tokens."""
    known = json.loads(path.read_text()) if path.exists() else {}
    known.setdefault(device, {}).setdefault(key, {}).update(found)
    path.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")


def main(argv: Sequence[str] | None = None) -> None:
    from llmos.drivers.ops.triton.quantized_choice import BUCKETS

    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("kinds", nargs="*", default=list(KINDS), metavar="KIND", help=f"of {', '.join(KINDS)}; or all")
    parser.add_argument("--tokens", type=int, nargs="+", default=BUCKETS, choices=BUCKETS, help="all by default")
    parser.add_argument("--keep", type=Path, default=TABLE, help="the table of all GPUs, in which this one's is put")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--tiny", action="store_true", help="layers at whose size the interpreter can try it")
    options = parser.parse_args(argv)
    unknown = [kind for kind in options.kinds if kind not in KINDS]
    if unknown:
        parser.error(f"there is no kind {unknown[0]}; choose of {', '.join(KINDS)}")
    name = torch.cuda.get_device_name() if options.device == "cuda" else options.device
    for key, found in tabled(Setting(options.device, options.tiny, Path()), options.kinds, options.tokens):
        keep(options.keep, name, key, found)


if __name__ == "__main__":
    main()
