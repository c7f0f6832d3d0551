"""Divides a model among ranks as transformers' own tensor-parallel plan says, in place.

A plan names parts of the model, with `*` for the number of a layer, and the style of each. Only the names and styles
are the library's; slices, sums and what surrounds them are made here, because the engine replaces parts of models and
wants to see plain tensors. The slices are views: of the rest nothing is copied, and nothing need be read.

Styles after Megatron-LM (Shoeybi et al., arXiv 1909.08053): columns of the first product and rows of the second, so
that there is one sum for two products.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from llmos.syscalls.errors import NotSupported

from .layers import GatherLinear, RowLinear, linear, parameter, summed
from .team import Team

COLUMNS, ROWS = "colwise", "rowwise"
GATHERED = ("colwise_gather_output", "colwise_rep")
ROWS_OF_WHOLE = ("rowwise_split_input", "rowwise_rep")
PACKED_COLUMNS, PACKED_ROWS = "packed_colwise", "packed_rowwise"
SUMMED = ("moe_tp_experts", "all_reduce")
WHOLE = (
    "replicate", "replicated_with_grad_allreduce", "embedding_rowwise", "embedding_colwise", "mla_kv_a_proj",
    "local_params",
)  # fmt: skip
"""Styles of what every rank may keep and compute whole, with the same answer."""
NUMBER = re.compile(r"\.\d+(?=\.|$)")


def divide(module: Any, team: Team, path: str) -> None:
    """Leave of a model the part of one rank. Raises NotSupported, with the reason."""
    plan = _plan(module, path)
    divider = _Divider(team, path)
    for name, part in list(module.named_modules()):
        if _is_attention(part, f"{name}.k_proj", plan):
            divider.divide_keys(name, part, module.config.get_text_config(decoder=True))
    for name, style in _named(module, plan).items():
        divider.divide(module, name, style)


def _plan(module: Any, path: str) -> Mapping[str, str]:
    plan: Mapping[str, str] = getattr(module, "tp_plan", None) or {}
    if not any(style in (ROWS, *ROWS_OF_WHOLE, *SUMMED) for style in plan.values()):
        raise _refused(path, f"{type(module).__name__} has no tensor-parallel plan")
    return plan


def _named(module: nn.Module, plan: Mapping[str, str]) -> dict[str, str]:
    """The parts that a plan names, and their styles; inner parts come after the outer ones."""
    names = [name for name, _ in [*module.named_modules(), *module.named_parameters(remove_duplicate=False)] if name]
    found = {name: plan.get(name) or plan.get(NUMBER.sub(".*", name)) for name in names}
    return {name: style for name, style in found.items() if style is not None}


def _is_attention(part: nn.Module, keys: str, plan: Mapping[str, str]) -> bool:
    return isinstance(getattr(part, "k_proj", None), nn.Linear) and plan.get(NUMBER.sub(".*", keys)) == COLUMNS


class _Divider:
    def __init__(self, team: Team, path: str) -> None:
        self._team, self._path = team, path
        self._done: set[str] = set()

    def divide_keys(self, name: str, part: Any, config: Any) -> None:
        """Give each rank whole heads. Fewer heads of keys than ranks go to several ranks each."""
        ranks, rank = self._team.ranks, self._team.rank
        width = getattr(part, "head_dim", None) or getattr(config, "head_dim", None)
        width = width or config.hidden_size // config.num_attention_heads
        heads, queries = part.k_proj.out_features // width, part.q_proj.out_features // width
        if queries % ranks or (heads % ranks and ranks % heads):
            said = f"its {queries} attention heads over {heads} of keys and values"
            raise _refused(self._path, f"{said} cannot be divided among {ranks} ranks")
        if heads % ranks == 0:
            return
        mine = rank * heads // ranks
        for projection in ("k_proj", "v_proj"):
            whole: nn.Linear = getattr(part, projection)
            size = whole.out_features // heads
            setattr(part, projection, _rows_of(whole, mine * size, size))
            self._done.add(f"{name}.{projection}")
        part.num_key_value_groups = queries // ranks

    def divide(self, module: nn.Module, name: str, style: str) -> None:
        """Carry out one line of a plan."""
        if name in self._done or style in WHOLE:
            return
        above, _, own = name.rpartition(".")
        parent = module.get_submodule(above)
        part = getattr(parent, own)
        if isinstance(part, nn.Parameter):
            setattr(parent, own, parameter(self._slice(part, name, style)))
        elif isinstance(part, nn.Linear):
            setattr(parent, own, self._linear(part, name, style))
        elif style in SUMMED and isinstance(part, nn.Module):
            self._check_summed(part, name)
            summed(part, self._team)
        elif part is not None:
            raise _refused(self._path, f"its plan asks for {style} of {name}, a {type(part).__name__}")

    def _linear(self, part: nn.Linear, name: str, style: str) -> nn.Module:
        rank, ranks = self._team.rank, self._team.ranks
        if style in GATHERED and part.out_features % ranks:
            return part  # the same answer, computed by each
        if style == COLUMNS or style in GATHERED:
            size = self._size(part.out_features, name)
            mine = _rows_of(part, rank * size, size)
            return mine if style == COLUMNS else GatherLinear(mine, self._team)
        if style == ROWS or style in ROWS_OF_WHOLE:
            size = self._size(part.in_features, name)
            mine = linear(part.weight[:, rank * size : (rank + 1) * size], None)
            return RowLinear(mine, part.bias, self._team, style in ROWS_OF_WHOLE)
        if style == PACKED_COLUMNS:
            bias = None if part.bias is None else self._slice(part.bias, name, style)
            return linear(self._slice(part.weight, name, style), bias)
        raise _refused(self._path, f"its plan asks for {style} of {name}, which is not known")

    def _slice(self, tensor: Tensor, name: str, style: str) -> Tensor:
        """Of a parameter [.., N, K]: rows of N, or columns of K; of each half where two are packed into one."""
        if style not in (COLUMNS, ROWS, PACKED_COLUMNS, PACKED_ROWS):
            raise _refused(self._path, f"its plan asks for {style} of {name}, which is not known")
        dim = tensor.dim() - 1 if style in (ROWS, PACKED_ROWS) else max(tensor.dim() - 2, 0)
        halves = tensor.chunk(2, dim) if style in (PACKED_COLUMNS, PACKED_ROWS) else (tensor,)
        size = self._size(halves[0].shape[dim], name)
        mine = [half.narrow(dim, self._team.rank * size, size) for half in halves]
        return mine[0] if len(mine) == 1 else torch.cat(mine, dim)

    def _size(self, whole: int, name: str) -> int:
        if whole % self._team.ranks:
            said = f"the {whole} columns of {name}"
            raise _refused(self._path, f"{said} cannot be divided among {self._team.ranks} ranks")
        return whole // self._team.ranks

    def _check_summed(self, part: nn.Module, name: str) -> None:
        """A bias that each rank adds would be added several times."""
        biases = [own for own, _ in part.named_parameters() if own.endswith("bias")]
        if biases:
            raise _refused(self._path, f"{name} has {biases[0]}, which would be added on every rank")


def _rows_of(whole: nn.Linear, start: int, size: int) -> nn.Linear:
    bias = None if whole.bias is None else whole.bias[start : start + size]
    return linear(whole.weight[start : start + size], bias)


def _refused(path: str, why: str) -> NotSupported:
    return NotSupported(f"{path} cannot be split among ranks: {why}; load it on a device of one rank", why=why)
