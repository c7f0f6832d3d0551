"""How far back a layer sees, measured: the library says what a mask allows, and that is asked about single places.

Some models pass the width of their window to attention, others have it in the mask alone, and a few tokens do not show
it. While the layers of a model are found it goes by `PROBE`, for which `AttentionMaskInterface` hands over the rule
that a mask would be made from (transformers, `masking_utils`) instead of a mask.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionMaskInterface

PROBE = "llmos_probe"
NEAR = 64
"""Keys that are asked about one by one around a place where something changes."""

Rule = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""(batch, head, query, keys) to whether the query sees each of the keys."""


class Refused(Exception):
    """A layer asks for something that pages do not do; the text says what."""


@dataclass(frozen=True)
class Reach:
    """What a causal layer sees: the last `window` keys, or those of its own `chunk` of so many; 0 for no such bound."""

    window: int = 0
    chunk: int = 0

    def first(self, query: int) -> int:
        """The first key that a query sees."""
        if self.chunk:
            return query // self.chunk * self.chunk
        return max(0, query - self.window + 1) if self.window else 0

    def sees(self, queries: Tensor, keys: Tensor) -> Tensor:
        """Whether queries at these positions see keys at those."""
        seen = keys <= queries
        if self.chunk:
            seen = seen & (keys // self.chunk == queries // self.chunk)
        return seen & (keys > queries - self.window) if self.window else seen


class Described:
    """Stands for a mask and keeps the rule that it would be made from. Models that cut a part of it get all of it."""

    shape = (1, 1, 1, 1)
    ndim = 4

    def __init__(self, rule: Rule) -> None:
        self.rule = rule

    def __getitem__(self, _part: Any) -> Described:
        return self


def describe(mask_function: Rule, **_given: Any) -> Described:
    """What transformers calls to make a mask."""
    return Described(mask_function)


def measure(rule: Rule, context: int) -> Reach:
    """What a rule allows to queries before `context`. Raises Refused when it is no causal window or chunk."""
    start = _end_of_start(rule, context)
    if start is None:
        reach = Reach()
    elif bool(_sees(rule, start, torch.tensor([1]))):
        reach = Reach(window=start)
    else:
        reach = Reach(chunk=start) if start > 1 else Reach(window=1)
    for query in _queries(start or context, context):
        keys = _keys(query, reach.first(query))
        expected = (keys >= reach.first(query)) & (keys <= query)
        if not torch.equal(_sees(rule, query, keys), expected):
            raise Refused("its mask is no causal window or chunk")
    return reach


def _end_of_start(rule: Rule, context: int) -> int | None:
    """The first query that does not see key 0; None when all do."""
    low, high = 0, 1
    while bool(_sees(rule, high, torch.tensor([0]))):
        low, high = high, 2 * high
        if low >= context:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if bool(_sees(rule, middle, torch.tensor([0]))) else (low, middle)
    return high if high < context else None


def _queries(turn: int, context: int) -> Iterator[int]:
    around = (at + by for at in (0, turn, 2 * turn, 3 * turn, context // 2) for by in (-2, -1, 0, 1, 2))
    return iter(sorted({query for query in (*around, 5, 11, context - 1) if 0 <= query < context}))


def _keys(query: int, first: int) -> Tensor:
    """Keys around each place where what is seen may change, and some that are spread over all."""
    near = [torch.arange(at - NEAR, at + NEAR) for at in (0, first, query)]
    keys = torch.cat([*near, torch.linspace(0, query, NEAR).long()])
    return keys[(keys >= 0) & (keys < query + 3)]


def _sees(rule: Rule, query: int, keys: Tensor) -> Tensor:
    zero = torch.tensor(0)
    return rule(zero, zero, torch.tensor(query), keys).expand_as(keys)


AttentionMaskInterface.register(PROBE, describe)
