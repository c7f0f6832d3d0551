"""Batches of labelled rows, each with a batch of rows without labels beside it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from ..recipe import Recipe
from .batches import Batch, Batches, collate
from .unlabelled import Pool


class Paired(Sequence[Batch]):
    """As `Batches`: which rows come when depends on rows, recipe and seed alone. `others` of each batch are rows
    without labels as they are, and the same changed; their epochs are their own."""

    def __init__(self, labelled: Batches, pool: Pool, recipe: Recipe, padding: int = 0) -> None:
        """
        Args:
            labelled: batches of rows of one example each.
            pool: rows without labels.
            recipe: of which `unlabelled.rows`, batch_size and seed count.
            padding: the token of places that hold none.
        """
        assert recipe.unlabelled is not None
        self._labelled, self._pool, self._padding = labelled, pool, padding
        self._size = recipe.unlabelled.rows or recipe.batch_size
        self._given = Batches(pool.given, replace(recipe, batch_size=self._size), padding, room=0)
        self.room = labelled.room

    def __len__(self) -> int:
        """Batches of one epoch of rows with labels."""
        return len(self._labelled)

    def __getitem__(self, position: int) -> Batch:  # type: ignore[override]
        """The batch at a position that counts on through the epochs."""
        epoch = position // len(self._given)
        numbers = [number for (number,) in self._given.members(position)]
        return self._beside(self._labelled[position], numbers, epoch)

    def __iter__(self) -> Iterator[Batch]:
        """Those of the first epoch."""
        return (self[position] for position in range(len(self)))

    def largest(self, times: int = 1) -> tuple[Batch, ...]:
        """The longest rows of both, `times` over."""
        every = range(len(self._pool.given))
        longest = sorted(every, key=lambda n: max(map(len, (self._pool.given[n], *self._pool.changed[n]))))
        [most] = self._labelled.largest(times)
        return (self._beside(most, longest[: -self._size - 1 : -1] * times, 0),)

    def _beside(self, batch: Batch, numbers: Sequence[int], epoch: int) -> Batch:
        """A batch with rows of the pool; a row takes another of its copies in each epoch."""
        pool = self._pool
        rows = [pool.given[n] for n in numbers], [pool.changed[n][epoch % len(pool.changed[n])] for n in numbers]
        return replace(batch, others=tuple(collate([[row] for row in those], self._padding) for those in rows))
