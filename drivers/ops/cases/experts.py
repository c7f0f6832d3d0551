"""Mixtures of experts: few and many tokens, experts that nobody chose, all gates, biases, stacks of either layout."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..reference_experts import Gate
from .case import Call, Case, Draws, Verdict, distance, near

CLAMPED = Gate(interleaved=True, alpha=1.702, limit=1.5, shift=1.0)
"""As gpt-oss has it, with a limit that some numbers reach."""


@dataclass(frozen=True)
class Setting:
    """`tokens` of `width` through `most` of so many `experts`, which are `inner` wide."""

    name: str
    tokens: int
    experts: int
    most: int
    width: int
    inner: int
    gate: Gate = Gate()  # noqa: RUF009 (frozen)
    transposed: bool = False
    biases: bool = False
    only: tuple[int, ...] = ()
    """The experts that may be chosen, also numbers of none; all where it is empty."""


TINY = (
    Setting("one token", 1, 4, 2, 24, 18),
    Setting("more experts than tokens", 3, 9, 2, 20, 16, Gate("gelu_tanh")),
    Setting("one expert for all", 20, 4, 1, 16, 16, only=(2,)),
    Setting("experts elsewhere", 5, 3, 2, 16, 17, only=(-1, 1, 3, 7)),
    Setting("gpt-oss", 4, 3, 2, 20, 18, CLAMPED, transposed=True, biases=True),
    Setting("gelu with biases", 4, 3, 3, 16, 16, Gate("gelu"), biases=True),
    Setting("wider than a step", 2, 2, 2, 140, 66),
)
LARGE = (
    Setting("30B-A3B", 512, 16, 8, 2048, 768),
    Setting("8x7B", 32, 4, 2, 4096, 1792),
    Setting("gpt-oss 20B", 32, 5, 4, 2880, 2880, CLAMPED, transposed=True, biases=True),
)
"""Of layers of such models an eighth: what the processor must make and compute as well is to take a second."""


def judged(expected: Any, got: Any, dtype: torch.dtype, call: Call) -> Verdict:
    """Twice as far as others may be off, relative to what ends in a sum where that is larger than the sum itself."""
    found = near(expected, got, dtype, call)
    allowed = 2.0 * found.allowed
    if found.worst > allowed and len(got) == len(expected) == 1:
        worst, where = distance(expected[0], got[0], terms(call))
        found = replace(found, worst=worst, what=f"value 0: {where}")
    return replace(found, ok=found.worst <= allowed, allowed=allowed)


def terms(call: Call) -> Tensor:
    """How large what ends in each number of an answer [T, H] is: the root of the sum of its squares.

    What is rounded on the way is as large as that, while the sum may have cancelled out. What the first products end in
    counts as well: a number between is taken as large as their terms could make it.
    """
    none, gate = torch.zeros(1, 1), call.args[5]
    given = (none if each is None else each for each in (*call.args[:5], *call.args[6:]))
    x, gate_up, down, chosen, weights, gate_up_bias, down_bias = (each.detach().cpu().double() for each in given)
    squares = torch.zeros(x.shape[0], down.shape[1], dtype=torch.float64)
    for token, most in enumerate(chosen.tolist()):
        for weight, expert in zip(weights[token], map(int, most), strict=True):
            if not 0 <= expert < down.shape[0]:
                continue
            own, other = (bias[min(expert, len(bias) - 1)] for bias in (gate_up_bias, down_bias))
            both = gate_up[expert] @ x[token] + own
            spread = (gate_up[expert].square() @ x[token].square() + own.square()).sqrt()
            hidden = gate(both)
            largest = torch.stack([hidden, gate(both + spread), gate(both - spread)]).abs().amax(0)
            part = down[expert] @ hidden + other
            made = down[expert].square() @ largest.square() + other.square() + part.square()
            squares[token] += weight.square() * made
    return squares.sqrt()


def cases(tiny: bool) -> Iterator[Case]:
    """Of the op `experts`."""
    for number, setting in enumerate(TINY):
        yield Case("experts", setting.name, {}, Experts(setting, number), judge=judged)
    for largest in () if tiny else LARGE:
        for tokens in (count for count in (1, 32, 512) if count <= largest.tokens):
            one = replace(largest, name=f"{largest.name}, {tokens} tokens", tokens=tokens)
            yield Case("experts", one.name, {}, Experts(one, tokens), dtypes=("bfloat16",), judge=judged)


@dataclass(frozen=True)
class Experts:
    """Arguments of `experts`."""

    setting: Setting
    seed: int

    def __call__(self, device: torch.device, dtype: torch.dtype) -> Call:
        one, draws = self.setting, Draws(self.seed, device, dtype)
        count, width, inner = one.experts, one.width, one.inner
        gate_up = self._stack(draws, (count, 2 * inner, width))
        down = self._stack(draws, (count, width, inner))
        biases = (draws.normal(count, 2 * inner), draws.normal(count, width)) if one.biases else (None, None)
        x = draws.normal(one.tokens, width)
        among = torch.tensor(one.only or range(count), device=device)
        scores = draws.uniform(one.tokens, len(among), dtype=torch.float32)
        chosen = among[scores.argsort(dim=1)[:, : one.most]]
        weights = draws.uniform(one.tokens, one.most, dtype=torch.float32)
        return Call((x, gate_up, down, chosen, weights / weights.sum(1, keepdim=True), one.gate, *biases))

    def _stack(self, draws: Draws, shape: tuple[int, int, int]) -> Tensor:
        """Weights [E, outs, ins], which lie in memory as [E, ins, outs] when the setting is transposed.

        Numbers of one expert are drawn; another has them in other rows.
        """
        count, outs, ins = shape
        drawn = draws.normal(*((ins, outs) if self.setting.transposed else (outs, ins)), scale=ins**-0.5)
        stack = torch.stack([drawn.roll(expert, 0) for expert in range(count)])
        return stack.transpose(1, 2) if self.setting.transposed else stack
