"""Products with weights of 4 and 8 bits against the library's in bfloat16: G12, G13, G14; what else was tried.

    python tests/perf/gpu/quantized.py [--keep FILE]

measures every layer of the large model by every choice that its kernels have, and writes what was best for this GPU
into a table that the kernels read (`drivers/ops/triton/quantized_choice.py`); choices where none beats what is planned
are left out.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
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
FLOAT = Scheme(8, 0, "float")
GAIN = 0.97
"""A choice is kept when it takes at most so much of the planned one's time."""
TRIED_ROUNDS = 3


def run(setting: Setting) -> Iterator[Found]:
    """The shape that the aims are about; then what was planned beside everything that could be."""
    outs, ins = setting.pick(14_336, 48), setting.pick(4096, 64)
    few, many = ((1, 8, 16, 64), 4096) if not setting.tiny else ((1, 3), 20)
    table = op_table(setting.device)
    plain = {tokens: library(setting, outs, ins, tokens) for tokens in (*few, many)}
    activations = dict.fromkeys(SCHEMES, "model") | {"fp8": "float8" if setting.device == "cuda" else "model"}
    for name, scheme in (*SCHEMES.items(), ("fp8", FLOAT)):
        tokens = few if name != "fp8" else (setting.pick(16, 3), many)
        made = Layers(setting, table, scheme, outs, ins, activations[name])
        yield {
            name: {
                str(count): {"library": plain[count], "ours": made.seconds(count), "by": made.how(count)}
                for count in tokens
            }
        }
    found: Found = {}
    for name, scheme in SCHEMES.items():
        for count in few:
            made = Layers(setting, table, scheme, outs, ins, "model")
            if made.kernels:
                found[f"{name} {count}"] = {"best": made.best(count, TRIED_ROUNDS), "planned": made.how(count)}
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

    def how(self, tokens: int) -> str:
        return str(self.made[0].choice(tokens)) if self.kernels else self.name

    def best(self, tokens: int, rounds: int) -> dict[str, Any]:
        """The fields of the quickest choice and its seconds, beside those of the planned one. What does not compile or
        asks for too much is passed over."""
        from llmos.drivers.ops.triton.quantized_choice import candidates, told
        from triton.compiler.errors import CompilationError
        from triton.runtime.errors import OutOfResources, PTXASError

        x, device = self.x(tokens), self.setting.device
        found: list[tuple[float, Any]] = []
        for choice in candidates(self.made[0].layer, tokens):
            runs = [lambda layer=layer, choice=choice: layer.computed(x, choice) for layer in self.made]
            try:
                found.append((seconds(runs, device, rounds=rounds), choice))
            except (CompilationError, OutOfResources, PTXASError, RuntimeError):
                continue
        took, choice = min(found, key=lambda each: each[0])
        return {"choice": told(choice), "seconds": took, "planned": found[0][0]}


def layers_of(shape: Shape) -> Iterator[tuple[int, int]]:
    """Outputs and inputs of the products of a model, merged as the engine merges them."""
    query, key = shape.heads * shape.width, shape.kv_heads * shape.width
    yield query + 2 * key, shape.hidden
    yield shape.hidden, query
    yield 2 * shape.inner, shape.hidden
    yield shape.hidden, shape.inner


def tabled(setting: Setting, schemes: Iterator[Scheme]) -> dict[str, dict[str, Any]]:
    """The table of this device, as the kernels read it."""
    from llmos.drivers.ops.triton.quantized_choice import BUCKETS

    table = op_table(setting.device)
    found: dict[str, dict[str, Any]] = {}
    for scheme in schemes:
        for outs, ins in layers_of(SHAPES[setting.large]):
            made = Layers(setting, table, scheme, outs, ins, "model")
            for tokens in BUCKETS:
                best = made.best(tokens, TRIED_ROUNDS)
                if best["seconds"] < GAIN * best["planned"]:
                    found.setdefault(made.made[0].layer.key, {})[str(tokens)] = best["choice"]
                print(outs, ins, scheme, tokens, best, flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--keep", type=Path, default=TABLE, help="the table of all GPUs, in which this one's is put")
    keep = parser.parse_args().keep
    known = json.loads(keep.read_text()) if keep.exists() else {}
    schemes = iter((Scheme(4, 128), Scheme(4, 32), Scheme(8, 0), Scheme(8, 128)))
    known[torch.cuda.get_device_name()] = tabled(Setting("cuda", False, Path()), schemes)
    keep.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
