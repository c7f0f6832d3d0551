"""Each aid against its formula, written out with plain passes of the library."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import tuning_runs
from torch import Tensor, nn

from llmos.drivers.tuning import aids
from llmos.drivers.tuning.data.batches import Batch, collate
from llmos.drivers.tuning.objectives.causal import Causal
from llmos.drivers.tuning.objectives.protocol import Outcome
from llmos.syscalls.errors import BadArgument

LOSS = Causal().loss


def batch() -> Batch:
    return collate([[each] for each in tuning_runs.sentences(4)])


def pair(dropout: float = 0.0) -> tuple[nn.Module, Any]:
    """Two equal modules of which only adapters move."""
    module = tuning_runs.lora(tuning_runs.llama(), dropout)
    with torch.no_grad():
        for name, value in module.named_parameters():
            if "lora_B" in name:
                value.normal_(0.0, 0.3)
    return module, copy.deepcopy(module)


def mean_of(module: Any, given: Batch, embeddings: Tensor) -> Tensor:
    """The library's mean loss on embeddings."""
    mean: Tensor = module(
        inputs_embeds=embeddings, attention_mask=given.attention_mask, labels=given.labels, use_cache=False
    ).loss
    return mean


def test_plain_gradients_are_those_of_the_mean() -> None:
    module, other = pair()
    given = batch()
    weight = Causal().weight(given)
    outcome = aids.backward_of(LOSS)(module, given, weight)
    wanted = other(input_ids=given.input_ids, attention_mask=given.attention_mask, labels=given.labels).loss
    wanted.backward()
    assert not outcome.total.requires_grad and float(outcome.total) / weight == pytest.approx(wanted.item(), rel=1e-6)
    torch.testing.assert_close(tuning_runs.gradients(module), tuning_runs.gradients(other), rtol=1e-5, atol=1e-7)


def test_mixed_precision_has_products_in_bfloat16_and_gradients_in_float32() -> None:
    module, other = pair()
    given, seen = batch(), set[torch.dtype]()
    module.get_submodule("base_model.model.model.layers.0.mlp.up_proj").register_forward_hook(
        lambda _, __, output: seen.add(output.dtype)
    )
    mixed, plain = aids.mixed(LOSS)(module, given), LOSS(other, given)
    assert seen == {torch.bfloat16} and mixed.total.dtype == torch.float32
    assert not torch.equal(mixed.total, plain.total)
    torch.testing.assert_close(mixed.total, plain.total, rtol=2e-2, atol=0.0)
    mixed.total.backward()  # type: ignore[no-untyped-call]
    assert {value.dtype for value in tuning_runs.gradients(module).values()} == {torch.float32}


def test_r_drop_is_the_mean_of_two_passes_and_their_divergence() -> None:
    module, other = pair(dropout=0.4)
    given, weight = batch(), Causal().weight(batch())
    torch.manual_seed(3)
    aids.backward_of(aids.r_drop(LOSS, alpha=0.7))(module, given, weight)
    torch.manual_seed(3)
    kept = given.labels[:, 1:] != -100
    passes = []
    for _ in range(2):
        logits = other(input_ids=given.input_ids, attention_mask=given.attention_mask).logits[:, :-1][kept]
        passes.append(logits.log_softmax(-1))
    wanted = given.labels[:, 1:][kept]
    p, q = passes
    plain = -(p.gather(1, wanted[:, None]) + q.gather(1, wanted[:, None])).mean() / 2
    apart = ((p.exp() * (p - q)).sum(-1) + (q.exp() * (q - p)).sum(-1)).mean() / 2
    (plain + 0.7 / 2 * apart).backward()
    assert apart.item() > 1e-4
    torch.testing.assert_close(tuning_runs.gradients(module), tuning_runs.gradients(other), rtol=1e-4, atol=1e-6)


def test_r_drop_while_not_training_is_one_pass() -> None:
    module, _ = pair(dropout=0.4)
    module.eval()
    given, passes = batch(), []
    module.register_forward_hook(lambda *_: passes.append(1))
    assert float(aids.r_drop(LOSS)(module, given).total.detach()) == float(LOSS(module, given).total.detach())
    assert len(passes) == 2


def test_r_drop_needs_scores() -> None:
    module, _ = pair()
    with pytest.raises(BadArgument, match="scores"):
        aids.r_drop(lambda module, given: Outcome(LOSS(module, given).total))(module, batch())


@pytest.mark.parametrize(
    ("backward", "pace", "times"), [(aids.fgm(LOSS, 0.5), 0.5, 1), (aids.pgd(LOSS, 0.5, 0.2, 4), 0.2, 4)]
)
def test_embeddings_are_moved_up_the_loss(backward: aids.Backward, pace: float, times: int) -> None:
    module, other = pair()
    given = batch()
    backward(module, given, Causal().weight(given))
    embeddings = other.get_input_embeddings()(given.input_ids).detach()
    at = torch.zeros_like(embeddings)
    mean_of(other, given, embeddings).backward()
    twin = copy.deepcopy(other)
    for _ in range(times):
        moved = (embeddings + at).requires_grad_()
        (gradient,) = torch.autograd.grad(mean_of(twin, given, moved), moved)
        at = at + pace * gradient / gradient.flatten(1).norm(dim=1)[:, None, None]
        at = at * (0.5 / at.flatten(1).norm(dim=1)).clamp(max=1.0)[:, None, None]
    assert at.flatten(1).norm(dim=1).max().item() == pytest.approx(0.5)  # the bound is met by some row
    mean_of(other, given, embeddings + at).backward()
    torch.testing.assert_close(tuning_runs.gradients(module), tuning_runs.gradients(other), rtol=1e-4, atol=1e-5)


def test_embeddings_are_left_as_they_were() -> None:
    module, _ = pair()
    given = batch()
    before = float(LOSS(module, given).total.detach())
    aids.pgd(LOSS)(module, given, 1.0)
    assert float(LOSS(module, given).total.detach()) == before
    assert not module.get_input_embeddings()._forward_hooks  # type: ignore[operator]


def test_layers_that_are_computed_again_give_the_same_gradients() -> None:
    module, other = pair(dropout=0.4)
    given, weight = batch(), Causal().weight(batch())
    aids.save_memory(module)
    counts = [0, 0]
    for index, each in enumerate((module, other)):

        def count(*_: object, index: int = index) -> None:
            counts[index] += 1

        each.get_submodule("base_model.model.model.layers.0.mlp.up_proj").register_forward_hook(count)
        torch.manual_seed(3)
        aids.backward_of(LOSS)(each, given, weight)
    assert counts == [2, 1]
    ours, theirs = tuning_runs.gradients(module), tuning_runs.gradients(other)
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_model_that_cannot_compute_again_is_refused() -> None:
    with pytest.raises(BadArgument, match="Linear"):
        aids.save_memory(nn.Linear(2, 2))
