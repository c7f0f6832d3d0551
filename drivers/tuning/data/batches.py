"""Encoded examples as batches of tensors: which comes when is settled by recipe and seed alone, and any can be had."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..recipe import Recipe
from . import packing
from .example import IGNORED, Example


@dataclass(frozen=True)
class Batch:
    """Rows of tokens, padded to the longest.

    Attributes:
        input_ids: [R, T] int64.
        position_ids: [R, T] int64; they start again at each example in a row, and at the padding.
        labels: [R, T] int64 not shifted, IGNORED at padding and, unless they are aligned, at the first token of each
            example; where labels are of whole rows: [R] int64 classes, [R, C] float32 classes that apply, [R] float32
            scores, [R, 2] int64 first and last token of an answer.
        documents: [R, T] int64, which example of its row each token is of, from 0; -1 is padding.
        kinds: [R, T] int64, which of two texts a token is of; None where the model does not tell them apart.
        others: the further texts of the rows, one batch each.
        task: the number of the task that it is of, where there are several.
    """

    input_ids: Tensor
    position_ids: Tensor
    labels: Tensor
    documents: Tensor
    kinds: Tensor | None = None
    others: tuple[Batch, ...] = ()
    task: int = 0

    @property
    def attention_mask(self) -> Tensor:
        """[R, T] int64, 1 where a token is: for models whose rows hold one example each."""
        return (self.documents != packing.PADDING).long()

    @property
    def packed(self) -> bool:
        """Whether a row holds more than one example."""
        return bool((self.documents > 0).any())

    @property
    def tokens(self) -> int:
        """How many there are without padding, those of other texts included."""
        return int((self.documents != packing.PADDING).sum()) + sum(other.tokens for other in self.others)

    def to(self, device: torch.device | str) -> Batch:
        kinds = None if self.kinds is None else self.kinds.to(device)
        return Batch(
            self.input_ids.to(device), self.position_ids.to(device), self.labels.to(device),
            self.documents.to(device), kinds, tuple(other.to(device) for other in self.others), self.task,
        )  # fmt: skip


class Batches(Sequence[Batch]):
    """The batches of a training run, one epoch after the other without end: `batches[position]` is made when asked for.

    Which rows there are is settled once, their order anew for each epoch; both depend on the examples' lengths, the
    recipe and its seed alone. So a run that goes on after an interruption asks for its next position.
    """

    def __init__(
        self, examples: Sequence[Example], recipe: Recipe, padding: int = 0, room: int | None = None,
        shuffled: bool = True,
    ) -> None:  # fmt: skip
        """
        Args:
            examples: none of them empty, at least one.
            recipe: of which batch_size, packing, max_length and seed count.
            padding: the token of places that hold none.
            room: tokens of a packed row, where it is not the recipe's max_length or the longest example; 0 for one
                example to a row, whatever the recipe says, as every objective but causal-lm has it.
            shuffled: false for the rows in the order of the file, as evaluation takes them.
        """
        self._examples, self.size, self._seed, self._padding = examples, recipe.batch_size, recipe.seed, padding
        self._shuffled = shuffled
        longest = max(len(example) for example in examples)
        self.room = max(longest, room or recipe.max_length or longest) if recipe.packing and room != 0 else 0
        if self.room and recipe.objective == "causal-lm" and packable(examples):
            self.rows = packing.pack([len(example) for example in examples], self.room, recipe.seed)
        else:
            self.room, self.rows = 0, tuple((number,) for number in range(len(examples)))
        self.per_epoch = math.ceil(len(self.rows) / self.size)
        self._order: tuple[int, list[int]] = (-1, [])

    def __len__(self) -> int:
        """Batches of one epoch."""
        return self.per_epoch

    def __getitem__(self, position: int) -> Batch:  # type: ignore[override]
        """The batch at a position that counts on through the epochs."""
        if position < 0:
            raise IndexError(f"there is no batch {position}")
        return self.of(self.members(position))

    def of(self, rows: Sequence[tuple[int, ...]]) -> Batch:
        """A batch of rows, each as the numbers of its examples."""
        return collate([[self._examples[n] for n in row] for row in rows], self._padding)

    def largest(self, times: int = 1) -> tuple[Batch, ...]:
        """The longest rows of a run in one batch, `times` over: no batch of any epoch has more tokens, once. One for
        each task; here there is one."""
        return (self.of(sorted(self.rows, key=self.length, reverse=True)[: self.size] * times),)

    def length(self, row: tuple[int, ...]) -> int:
        """Tokens of a row, those of its other texts included."""
        every = (self._examples[n] for n in row)
        return sum(len(each) + sum(len(other) for other in each.others) for each in every)

    def __iter__(self) -> Iterator[Batch]:
        """Those of the first epoch."""
        return (self[position] for position in range(self.per_epoch))

    def members(self, position: int) -> list[tuple[int, ...]]:
        """The numbers of the examples in each row of a batch."""
        epoch, index = divmod(position, self.per_epoch)
        if self._order[0] != epoch:
            count = len(self.rows)
            self._order = epoch, packing.order(count, self._seed, epoch) if self._shuffled else list(range(count))
        return [self.rows[row] for row in self._order[1][index * self.size : (index + 1) * self.size]]


def batches(examples: Sequence[Example], recipe: Recipe, epoch: int = 0, padding: int = 0) -> Iterator[Batch]:
    """The batches of one epoch, from 0."""
    every = Batches(examples, recipe, padding)
    return (every[position] for position in range(epoch * every.per_epoch, (epoch + 1) * every.per_epoch))


def steps_of(recipe: Recipe, per_epoch: int) -> int:
    """Optimizer steps of a run whose epochs have `per_epoch` batches; `max_steps`, where given, in place of `epochs`.

    Each takes the next `accumulation` batches, also over the end of an epoch.
    """
    return recipe.max_steps or max(1, math.ceil(recipe.epochs * per_epoch / recipe.accumulation))


def packable(examples: Sequence[Example]) -> bool:
    """Whether what is learned stands at the tokens, and a row is one text: else each row of a batch is one example."""
    return not any(each.whole or each.others or each.kinds for each in examples)


def collate(rows: Sequence[Sequence[Example]], padding: int = 0) -> Batch:
    """Rows of examples, of each row side by side, as one batch; `others` of rows with one example become batches."""
    first = rows[0][0]
    shape = len(rows), max(sum(len(example) for example in row) for row in rows)
    ids, documents = torch.full(shape, padding), torch.full(shape, packing.PADDING)
    labels = torch.full(shape, IGNORED)
    kinds = torch.zeros(shape, dtype=torch.int64) if first.kinds else None
    for index, row in enumerate(rows):
        start = 0
        for document, example in enumerate(row):
            place = slice(start, start + len(example))
            ids[index, place] = torch.as_tensor(example.tokens)
            documents[index, place] = document
            if not first.whole:
                labels[index, place] = torch.as_tensor(example.labels)
                if not example.aligned:
                    labels[index, start] = IGNORED
            if kinds is not None:
                kinds[index, place] = torch.as_tensor(example.kinds)
            start += len(example)
    if first.whole:
        labels = _whole([row[0].labels for row in rows])
    others = tuple(collate([[row[0].others[n]] for row in rows], padding) for n in range(len(first.others)))
    return Batch(ids, packing.positions_of(documents), labels, documents, kinds, others)


def _whole(labels: Sequence[Sequence[float]]) -> Tensor:
    """Labels of whole rows: one number each without its dimension; integers stay integers."""
    made = torch.tensor([list(each) for each in labels])
    return made[:, 0] if made.ndim == 2 and made.shape[1] == 1 else made
