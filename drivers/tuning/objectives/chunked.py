"""The next token, with the scores of a few tokens at a time.

Scores of a whole batch take more memory than all else where the vocabulary is large: float32 for each token and class,
and as much again for their logarithms and for their gradient. Here a part of the tokens is scored, its gradient taken
back to the states before the head soon, and its scores forgotten (as in Liger Kernel, arXiv:2410.10989).

A head that lies packed is unpacked for that, in pieces: so the gradients of several parts wait for one another, and
go through each piece together. Of a head of V classes and S inputs then V * S numbers are unpacked for every `HELD`
parts, in memory of one piece, and products have enough rows to be worth it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ...ops.linear import Piece, added
from ..data.batches import Batch
from ..data.example import IGNORED
from ..resident import ResidentLinear
from .causal import Causal, answered, of_labels
from .entropy import Entropy
from .protocol import Outcome

ROOM = 1 << 20
"""Scores at a time: 4 MiB of float32, three times that with logarithms and gradient. Others have their turn in between:
so it is little, too, that a part takes not much longer than a layer."""

FEWEST = 16
"""Tokens at a time at least: with fewer the weights of the head are read more often than they are worth."""

HELD = 8
"""Parts whose gradients wait, in the head's dtype: 32 MiB of float32, 16 of bfloat16."""


@dataclass(frozen=True)
class Chunked(Causal):
    """As `Causal`, without `scores` in its outcome; for modules that `fits` is true of.

    Attributes:
        room: numbers of scores that may be there at once, those of `FEWEST` tokens at least.
    """

    head: ClassVar[str] = "causal-lm"
    room: int = ROOM

    def loss(self, module: nn.Module, batch: Batch) -> Outcome:
        entropy = Entropy(self.smoothing, self.class_weights)
        losses, right = losses_of(module, batch, entropy, self.room)
        return Outcome(losses.sum(), {"right": right.sum(), "items": torch.tensor(right.numel())})


def losses_of(module: nn.Module, batch: Batch, entropy: Entropy, room: int = ROOM) -> tuple[Tensor, Tensor]:
    """Of each token with a label, row by row: its loss, float32, and whether the likeliest one is right, bool."""
    targets = batch.labels[:, 1:]
    kept = targets != IGNORED
    head = _head(module)
    assert head is not None
    return losses_at(before_head(module, head, batch)[kept], targets[kept], head, entropy, room)


def losses_at(
    states: Tensor, wanted: Tensor, head: nn.Linear, entropy: Entropy, room: int = ROOM
) -> tuple[Tensor, Tensor]:
    """Of each state [items, size] before the head and the class int64 [items] that is right: as `losses_of`."""
    losses: Tensor
    losses, right = _Losses.apply(states, wanted, head, entropy, room)  # type: ignore[no-untyped-call]
    return losses, right


class _Losses(torch.autograd.Function):
    """Losses [items] of states [items, size], and whether the best score is the right one, bool [items].

    A loss depends on its own state alone: so the gradient of each is known in the forward pass but for a factor.
    """

    @staticmethod
    def forward(
        ctx: Any, states: Tensor, wanted: Tensor, head: nn.Linear, entropy: Entropy, room: int
    ) -> tuple[Tensor, Tensor]:
        waiting = _Waiting(states, head, room) if ctx.needs_input_grad[0] else None
        losses = torch.empty(len(states), device=states.device)
        right = torch.empty(len(states), dtype=torch.bool, device=states.device)
        for start in range(0, len(states), _part(head, room)):
            place = slice(start, start + _part(head, room))
            scores = head(states[place])
            dtype, scores = scores.dtype, scores.float()
            right[place] = scores.argmax(-1) == wanted[place]
            losses[place], logs = entropy.losses(scores, wanted[place])
            del scores
            if waiting is not None:
                waiting.add(entropy.slopes(logs, wanted[place]), dtype)
            del logs
            if waiting is not None:
                waiting.go()
        gradient = waiting.gradient if waiting is not None else None
        del waiting
        ctx.save_for_backward(gradient)
        ctx.mark_non_differentiable(right)
        return losses, right

    @staticmethod
    def backward(ctx: Any, *given: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return gradient * given[0][:, None].to(gradient.dtype), None, None, None, None


def _part(head: nn.Linear, room: int) -> int:
    """Tokens that are scored at a time."""
    return max(FEWEST, room // head.out_features)


PLANNED = "planned_scratch"
"""What a head without content says of the bytes that going through its weights takes beside, for a plan to count."""


class _Waiting:
    """Gradients of scores, until there are enough of them to go through the head's weights together.

    Attributes:
        gradient: of the states [items, size]; right when those of all scores were added, in their order.
    """

    def __init__(self, states: Tensor, head: nn.Linear, room: int) -> None:
        part = _part(head, room)
        self._most = min(part * max(1, HELD * room // (part * head.out_features)), len(states))
        self._head = head
        self._slopes = torch.empty(0)
        self._first = self._count = 0
        self._whole: list[Piece] = []
        self.gradient = torch.empty_like(states)

    def add(self, slopes: Tensor, dtype: torch.dtype) -> None:
        """float32 [some items, classes]; `dtype` is that of the scores."""
        if not len(self._slopes):
            self._slopes = slopes.new_empty(self._most, slopes.shape[1], dtype=dtype)
        self._slopes[self._count : self._count + len(slopes)] = slopes
        self._count += len(slopes)

    def go(self) -> None:
        """Through the weights, if there are enough of them or no more to come."""
        ended = self._first + self._count
        if self._count == self._most or ended == len(self.gradient):
            self.gradient[self._first : ended] = added(self._slopes[: self._count], self._pieces())
            self._first, self._count = ended, 0

    def _pieces(self) -> Iterable[Piece]:
        """The head's weights; what is unpacked as one is so only once."""
        if planned := getattr(self._head, PLANNED, 0):
            torch.empty(planned, dtype=torch.uint8)  # seen by whoever counts, and gone
        if isinstance(self._head, ResidentLinear) and self._head.piece < self._head.out_features:
            return self._head.pieces()
        self._whole = self._whole or [(slice(0, self._head.out_features), self._head.weight.detach())]
        return self._whole


def before_head(module: nn.Module, head: nn.Module, batch: Batch) -> Tensor:
    """What the head would score at the token before each label: [rows, tokens - 1, size]."""
    caught: list[Tensor] = []

    def catch(_: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        caught.append(given[0])
        return (given[0][:, -1:], *given[1:])  # it has a token to score, since the library asks for something

    handle = head.register_forward_pre_hook(catch)
    try:
        answered(module, batch)
    finally:
        handle.remove()
    return of_labels(caught[0], batch)


@torch.no_grad()
def fits(module: nn.Module, batch: Batch) -> bool:
    """Whether a module's scores are what its head makes of the states before it, and the head stays as it is.

    Some models scale or bound their scores afterwards, which a head alone does not tell: so the batch is tried.
    """
    head = _head(module)
    if head is None:
        return False
    was = module.training
    module.eval()
    try:
        plain, states = of_labels(answered(module, batch).logits, batch), before_head(module, head, batch)
        return bool(torch.allclose(head(states).float(), plain.float(), rtol=1e-2, atol=1e-3))
    finally:
        module.train(was)


def _head(module: nn.Module) -> nn.Linear | None:
    """What makes scores of states; None where there is no such layer or it is to be learnt."""
    head = module.get_output_embeddings()  # type: ignore[operator]
    if not isinstance(head, nn.Linear) or any(parameter.requires_grad for parameter in head.parameters()):
        return None
    return head
