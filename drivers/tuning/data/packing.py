"""Sequence packing: whole examples side by side in rows of one length, none of which sees its neighbours.

Attention within an example only: positions start again at each (what transformers finds the borders by, where it is
given no mask, no cache and positions alone), and the same as a mask for models that are given one.
"""

from __future__ import annotations

import bisect
import random
from collections.abc import Sequence

import torch
from torch import Tensor

PADDING = -1
"""The document of a place that holds no token."""


def order(count: int, seed: int, epoch: int) -> list[int]:
    """0 to `count` - 1 shuffled, the same for the same seed and epoch in every process."""
    numbers = list(range(count))
    random.Random(f"{seed} {epoch}").shuffle(numbers)
    return numbers


def pack(lengths: Sequence[int], room: int, seed: int = 0) -> tuple[tuple[int, ...], ...]:
    """Examples into rows of at most `room` tokens, each example in one row whole.

    Best fit, the longest first: each goes where least is left over. Of equally long ones chance decides, so that
    neighbours in the file are not neighbours in a row. Depends on the arguments alone.

    Args:
        lengths: tokens of each example, none more than `room`.
        room: tokens of a row.
        seed: of chance.

    Returns:
        for each row the numbers of its examples.
    """
    rows: list[list[int]] = []
    free: list[tuple[int, int]] = []  # tokens left over and the row, in order
    for number in sorted(order(len(lengths), seed, -1), key=lambda number: -lengths[number]):
        length = lengths[number]
        if length > room:
            raise ValueError(f"example {number} has {length} tokens, a row has {room}")
        place = bisect.bisect_left(free, (length, -1))
        if place == len(free):
            rows.append([])
            left, row = room, len(rows) - 1
        else:
            left, row = free.pop(place)
        rows[row].append(number)
        bisect.insort(free, (left - length, row))
    return tuple(tuple(row) for row in rows)


def positions_of(documents: Tensor) -> Tensor:
    """Positions [R, T] that start again at each document; padding counts as one more."""
    places = torch.arange(documents.shape[1], device=documents.device).expand_as(documents)
    begins = torch.ones_like(documents, dtype=torch.bool)
    begins[:, 1:] = documents[:, 1:] != documents[:, :-1]
    starts = torch.where(begins, places, 0).cummax(dim=1).values
    return places - starts


def mask_of(documents: Tensor, causal: bool = True) -> Tensor:
    """What may be seen from where.

    Args:
        documents: [R, T] the document that each token is of; padding sees padding, so that no row of the softmax is
            empty.
        causal: only what came before.

    Returns:
        [R, 1, T, T] bool, true where attention is allowed: what `scaled_dot_product_attention` and transformers take.
    """
    same = documents[:, :, None] == documents[:, None, :]
    return (same.tril() if causal else same)[:, None]


@torch.no_grad()
def crosses(module: torch.nn.Module, vocabulary: int) -> str:
    """Whether examples in one row of this model would see each other, in words; empty when they do not.

    A model with a state that runs on (Mamba, linear attention) or whose positions are no input mixes them, whatever
    its configuration says: so two short examples are run apart and in one row.
    """
    generator = torch.Generator().manual_seed(0)
    place = next((each.device for each in (*module.parameters(), *module.buffers())), torch.device("cpu"))
    first, second = torch.randint(0, vocabulary, (2, 1, 6), generator=generator).to(place)
    ids, documents = torch.cat([first, second], dim=1), torch.tensor([[0] * 6 + [1] * 6], device=place)
    was = module.training
    module.eval()
    try:
        alone = module(input_ids=second, position_ids=positions_of(documents)[:, 6:], use_cache=False).logits
        packed = module(input_ids=ids, position_ids=positions_of(documents), use_cache=False).logits[:, 6:]
    except TypeError as error:
        return f"the model takes no positions: {error}"
    finally:
        module.train(was)
    far = (alone.float() - packed.float()).abs().max().item()
    scale = alone.float().abs().max().item()
    return f"examples in one row change each other's answers by {far:.2g}" if far > 1e-2 * max(scale, 1e-6) else ""
