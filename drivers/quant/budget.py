"""Mixed precision: which layers are kept wider when there are bytes for some.

Every layer starts as narrow as was asked for. Then the step that takes away most error for each byte that it adds is
made (from 4 to 8 bits, or from numbers to the weights as they were), among those that still fit, until none does.
Errors are those of outputs over outputs, squared, and are added over layers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from llmos.syscalls.errors import BadArgument

from ..ops.quantized import Scheme


@dataclass(frozen=True)
class Rung:
    """One way of keeping a layer: `scheme` None as it was. `bytes` in memory; `error` 0 where nothing is lost."""

    scheme: Scheme | None
    bytes: int
    error: float


def within_budget(ladders: Mapping[str, Sequence[Rung]], budget: int) -> dict[str, Rung]:
    """The rung of each layer (or of layers that go together), from ladders with growing bytes and falling errors.

    Raises:
        BadArgument: the narrowest of all take more than the budget, bytes.
    """
    at = dict.fromkeys(ladders, 0)
    taken = sum(ladder[0].bytes for ladder in ladders.values())
    if taken > budget:
        said = f"byte_budget is {budget}; the narrowest that was asked for takes {taken} bytes"
        raise BadArgument(said, name="byte_budget", got=str(budget), want=f"at least {taken}")
    while True:
        steps = [
            (-_worth(ladder[at[name]], ladder[to]), name, to)
            for name, ladder in ladders.items()
            for to in range(at[name] + 1, len(ladder))
            if taken + ladder[to].bytes - ladder[at[name]].bytes <= budget and _worth(ladder[at[name]], ladder[to]) > 0
        ]
        if not steps:
            return {name: ladder[at[name]] for name, ladder in ladders.items()}
        _, name, to = min(steps)
        taken += ladders[name][to].bytes - ladders[name][at[name]].bytes
        at[name] = to


def _worth(one: Rung, other: Rung) -> float:
    """Error taken away for each byte added."""
    return (one.error - other.error) / max(1, other.bytes - one.bytes)
