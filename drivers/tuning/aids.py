"""Small pieces around a loss or around its backward pass; each can be put around another.

A `Loss` gives an outcome for a batch, a `Backward` adds the gradients of its total over `weight` as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional

from llmos.syscalls.errors import BadArgument

from .data.batches import Batch
from .objectives.protocol import Loss, Outcome

Backward = Callable[[nn.Module, Batch, float], Outcome]
"""Module, batch and weight: adds the gradients of total / weight, and gives the outcome without its graph."""


def backward_of(loss: Loss) -> Backward:
    def backward(module: nn.Module, batch: Batch, weight: float) -> Outcome:
        outcome = loss(module, batch)
        (outcome.total / weight).backward()  # type: ignore[no-untyped-call]
        return Outcome(outcome.total.detach(), outcome.sums)

    return backward


def mixed(loss: Loss, dtype: torch.dtype = torch.bfloat16) -> Loss:
    """Products in `dtype` (bfloat16), sums and parameters in float32: torch's autocast around the forward pass."""

    def passed(module: nn.Module, batch: Batch) -> Outcome:
        with torch.autocast(batch.input_ids.device.type, dtype):
            return loss(module, batch)

    return passed


def r_drop(loss: Loss, alpha: float = 1.0) -> Loss:
    """Two passes whose dropout differs and whose answers should not (R-Drop, Liang et al. 2021).

    The mean of both losses, plus `alpha` / 2 times the symmetric divergence of their scores. One pass while the
    module does not train. Raises BadArgument for an objective without scores.
    """

    def passed(module: nn.Module, batch: Batch) -> Outcome:
        first = loss(module, batch)
        if not module.training:
            return first
        second = loss(module, batch)
        if first.scores is None or second.scores is None:
            raise BadArgument("R-Drop compares scores, which this objective has none of", name="r_drop", want="0")
        apart = _divergence(first.scores, second.scores) + _divergence(second.scores, first.scores)
        return Outcome((first.total + second.total) / 2 + alpha / 4 * apart, first.sums, first.scores)

    return passed


def _divergence(scores: Tensor, other: Tensor) -> Tensor:
    """Sum over items of KL(scores || other)."""
    return functional.kl_div(other.log_softmax(-1), scores.log_softmax(-1), reduction="sum", log_target=True)


def fgm(loss: Loss, size: float = 1.0) -> Backward:
    """One more pass on embeddings that are moved `size` against the model (FGM, Miyato et al. 2017)."""
    return pgd(loss, size, size, 1)


def pgd(loss: Loss, size: float = 1.0, pace: float = 0.3, times: int = 3) -> Backward:
    """One more backward pass on embeddings that were moved `times` by `pace` up the loss, by `size` at most.

    As in PGD (Madry et al. 2018), with the outputs of the embeddings moved, per row, and not their weights: those
    belong to requests that are served meanwhile. Only the plain pass and the last one add gradients.
    """
    plain = backward_of(loss)

    def backward(module: nn.Module, batch: Batch, weight: float) -> Outcome:
        with _embeddings(module) as seen:
            outcome = plain(module, batch, weight)
        moved = [torch.zeros_like(output) for output in seen]
        gradients = [output.grad for output in seen]
        for time in range(times):
            moved = [_step(at, gradient, pace, size) for at, gradient in zip(moved, gradients, strict=True)]
            if time == times - 1:
                break
            with _embeddings(module, moved) as seen:
                total = loss(module, batch).total
                gradients = list(torch.autograd.grad(total / weight, seen, allow_unused=True))
        with _embeddings(module, moved):
            plain(module, batch, weight)
        return outcome

    return backward


def _step(at: Tensor, gradient: Tensor | None, pace: float, size: float) -> Tensor:
    """Up the gradient by `pace` per row, back to the ball of radius `size` around 0."""
    if gradient is None:
        return at
    moved = at + pace * gradient / _norm(gradient)
    bounded: Tensor = moved * (size / _norm(moved)).clamp(max=1.0)
    return bounded


def _norm(values: Tensor) -> Tensor:
    """The norm of each row, [rows, 1, ...]; never 0."""
    norms: Tensor = torch.linalg.vector_norm(values.flatten(1), dim=1).clamp_min(1e-12)
    return norms.view(-1, *[1] * (values.dim() - 1))


@contextmanager
def _embeddings(module: nn.Module, moved: list[Tensor] | None = None) -> Iterator[list[Tensor]]:
    """Outputs of the input embeddings, in the order of their calls, that keep their gradients; shifted by `moved`."""
    seen: list[Tensor] = []

    def hook(_: nn.Module, __: object, output: Tensor) -> Tensor:
        shifted = output if moved is None else output + moved[len(seen)]
        if not shifted.requires_grad:
            shifted = shifted.detach().requires_grad_()
        shifted.retain_grad()
        seen.append(shifted)
        return shifted

    embeddings = module.get_input_embeddings()  # type: ignore[operator]
    handle = embeddings.register_forward_hook(hook)
    try:
        yield seen
    finally:
        handle.remove()


def save_memory(module: nn.Module) -> None:
    """Compute the insides of layers again in the backward pass, instead of keeping them (gradient checkpointing).

    Raises BadArgument where the model's class does not offer it.
    """
    if not getattr(module, "supports_gradient_checkpointing", False):
        raise BadArgument(
            f"{type(module).__name__} has no gradient checkpointing", name="gradient_checkpointing", got="true",
            want="false",
        )  # fmt: skip
    module.gradient_checkpointing_enable({"use_reentrant": False})  # type: ignore[operator]
