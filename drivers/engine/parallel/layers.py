"""The layers of a split model that take part in something together; all others know nothing of ranks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .team import Team


class RowLinear(nn.Module):
    """A linear layer of which each rank has some of the input's columns; the products are summed, then biased.

    `split_input`: the input comes whole to each rank, which takes its columns.
    """

    def __init__(self, inner: nn.Linear, bias: nn.Parameter | None, team: Team, split_input: bool) -> None:
        super().__init__()
        self.in_features = inner.in_features * (team.ranks if split_input else 1)
        self.out_features = inner.out_features
        self.inner: Any = inner
        self.bias = bias
        self._team = team
        self._columns = slice(team.rank * inner.in_features, (team.rank + 1) * inner.in_features)
        self._split_input = split_input

    def forward(self, x: Tensor) -> Tensor:
        """x [.., K] to [.., N]."""
        part = x[..., self._columns] if self._split_input else x
        total = self._team.sum(self.inner(part))
        return total if self.bias is None else total + self.bias


class GatherLinear(nn.Module):
    """A linear layer of which each rank has some of the output's columns; each gets all of them."""

    def __init__(self, inner: nn.Linear, team: Team) -> None:
        super().__init__()
        self.in_features, self.out_features = inner.in_features, inner.out_features * team.ranks
        self.inner: Any = inner
        self._team = team

    def forward(self, x: Tensor) -> Tensor:
        """x [.., K] to [.., N]."""
        return self._team.gather(self.inner(x))


def summed(module: nn.Module, team: Team) -> None:
    """Let a module, each rank's part of which answers with a part of the sum, answer with all of it."""

    def sum_up(_module: nn.Module, _inputs: Any, answer: Tensor) -> Tensor:
        return team.sum(answer)

    module.register_forward_hook(sum_up)


def linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """A linear layer on these tensors, which are not copied."""
    with torch.device("meta"):
        made = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, dtype=weight.dtype)
    made.weight = parameter(weight)
    if bias is not None:
        made.bias = parameter(bias)
    return made


def parameter(tensor: Tensor) -> nn.Parameter:
    """A parameter that is not trained."""
    return nn.Parameter(tensor, requires_grad=False)
