"""Weights that old rows need are held where they were, by the rule of the paper."""

from __future__ import annotations

import copy

import pytest
import torch
import tuning_runs
from llmos.drivers.tuning.aids import backward_of
from llmos.drivers.tuning.data.batches import Batch, collate
from llmos.drivers.tuning.ewc import Anchored
from llmos.drivers.tuning.objectives.causal import Causal
from llmos.drivers.tuning.optimizing import trainable
from torch import Tensor, nn

ROWS = [collate([[one]]) for one in tuning_runs.sentences(3)]
BATCH = collate([[one] for one in tuning_runs.sentences(4, seed=1)])


def module() -> nn.Module:
    return tuning_runs.lora(tuning_runs.llama())


def importance(of: nn.Module) -> dict[str, Tensor]:
    """The mean over rows of squared gradients, row by row."""
    found: dict[str, Tensor] = {}
    for row in ROWS:
        one = copy.deepcopy(of)
        Causal().loss(one, row).total.backward()  # type: ignore[no-untyped-call]
        for name, slope in tuning_runs.gradients(one).items():
            found[name] = found.get(name, torch.zeros_like(slope)) + slope**2 / len(ROWS)
    return found


def stepped(held: Anchored, of: nn.Module, *micro: Batch) -> dict[str, Tensor]:
    backward, weight = held.around(backward_of(Causal().loss), Causal().weight), sum(map(Causal().weight, micro))
    for batch in micro:
        backward(of, batch, weight)
    found = {name: value.clone() for name, value in tuning_runs.gradients(of).items()}
    of.zero_grad()
    return found


def moved(of: nn.Module) -> dict[str, Tensor]:
    """Put each weight somewhere else; by how much."""
    torch.manual_seed(5)
    away = {name: torch.randn_like(value) for name, value in trainable(of).items()}
    with torch.no_grad():
        for name, value in trainable(of).items():
            value += away[name]
    return away


def test_the_gradient_is_that_of_the_loss_and_of_the_papers_term() -> None:
    one, held = module(), None
    matters = importance(one)
    held = Anchored(one, Causal(), ROWS, weight=3.0)
    first = stepped(held, one, BATCH)
    plain = copy.deepcopy(one)
    torch.testing.assert_close(first, stepped(Anchored(plain, Causal(), ROWS, 0.0), plain, BATCH))
    away = moved(one)
    plain = copy.deepcopy(one)
    backward_of(Causal().loss)(plain, BATCH, Causal().weight(BATCH))
    wanted = {n: slope + 3.0 * matters[n] * away[n] for n, slope in tuning_runs.gradients(plain).items()}
    torch.testing.assert_close(stepped(held, one, BATCH), wanted)


def test_a_step_has_the_term_once_however_many_batches_it_has() -> None:
    one = module()
    held = Anchored(one, Causal(), ROWS, weight=50.0)
    stepped(held, one, BATCH)
    moved(one)
    halves = [collate([[each] for each in tuning_runs.sentences(4, seed=1)[part]]) for part in (slice(3), slice(3, 4))]
    torch.testing.assert_close(stepped(held, one, *halves), stepped(held, one, BATCH), rtol=1e-4, atol=1e-5)


def test_after_an_interruption_weights_are_held_where_they_first_were() -> None:
    one = module()
    held = Anchored(one, Causal(), ROWS, weight=3.0)
    stepped(held, one, BATCH)
    moved(one)
    again = Anchored(one, Causal(), ROWS, weight=3.0)
    again.restore(held.states())
    held.stepped(1)
    torch.testing.assert_close(stepped(again, one, BATCH), stepped(held, one, BATCH), rtol=0, atol=0)
    fresh = Anchored(one, Causal(), ROWS, weight=3.0)
    with pytest.raises(AssertionError):
        torch.testing.assert_close(stepped(fresh, one, BATCH), stepped(held, one, BATCH))
