"""The layers that sum or gather answer as the whole layer does."""

from __future__ import annotations

import copy

import pytest
import torch
from llmos.drivers.engine.parallel.layers import GatherLinear, RowLinear, linear, parameter, summed
from rank_threads import ThreadTeam, together
from torch import Tensor, nn

WHOLE = nn.Linear(8, 6).requires_grad_(False)
X = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("split_input", [False, True])
@torch.inference_mode()
def test_rows_are_summed_and_biased_once(split_input: bool) -> None:
    def work(team: ThreadTeam) -> Tensor:
        mine = slice(team.rank * 4, team.rank * 4 + 4)
        layer = RowLinear(linear(WHOLE.weight[:, mine], None), parameter(WHOLE.bias), team, split_input)
        assert (layer.in_features, layer.out_features) == (8 if split_input else 4, 6)
        answer: Tensor = layer(X if split_input else X[:, mine])
        return answer

    for found in together(2, work):
        torch.testing.assert_close(found, WHOLE(X))


@torch.inference_mode()
def test_columns_are_gathered_in_the_order_of_ranks() -> None:
    def work(team: ThreadTeam) -> Tensor:
        mine = slice(team.rank * 2, team.rank * 2 + 2)
        layer = GatherLinear(linear(WHOLE.weight[mine], WHOLE.bias[mine]), team)
        assert (layer.in_features, layer.out_features) == (8, 6)
        answer: Tensor = layer(X)
        return answer

    for found in together(3, work):
        torch.testing.assert_close(found, WHOLE(X))


@torch.inference_mode()
def test_the_answers_of_a_summed_module_are_summed() -> None:
    def work(team: ThreadTeam) -> Tensor:
        layer = copy.deepcopy(WHOLE)
        summed(layer, team)
        answer: Tensor = layer(X)
        return answer

    for found in together(2, work):
        torch.testing.assert_close(found, 2 * WHOLE(X))


def test_a_made_layer_shares_the_tensors_it_is_made_of() -> None:
    made = linear(WHOLE.weight[2:4], WHOLE.bias[2:4])
    assert made.weight.data_ptr() == WHOLE.weight[2:].data_ptr()
    assert made.bias.data_ptr() == WHOLE.bias[2:].data_ptr()
    assert not made.weight.requires_grad
