"""Batches of several data sets in one run, small ones more often than their size has it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from . import packing
from .batches import Batch, Batches


def shares(sizes: Sequence[int], temperature: float) -> tuple[float, ...]:
    """How often each data set is drawn: in proportion to size^(1/temperature) (Arivazhagan et al. 2019).

    Args:
        sizes: of the data sets, at least one above 0.
        temperature: 1 for by size; larger for more alike, infinite for alike. Above 0.
    """
    most = max(sizes)  # powers of at most 1 do not run over, whatever the temperature
    powers = [(size / most) ** (1 / temperature) if size else 0.0 for size in sizes]
    return tuple(power / sum(powers) for power in powers)


class Mixture(Sequence[Batch]):
    """Batches of several data sets, without end as those of one: `mixture[position]` depends on the data sets, the
    temperature and the seed alone, so that a run goes on from any position.

    An epoch has as many batches as all data sets together, of each its share, in an order of its own. One that is drawn
    more often than its own epoch is long begins its next one, with its rows in another order.
    """

    def __init__(self, sources: Sequence[Batches], temperature: float = 1.0, seed: int = 0) -> None:
        """
        Args:
            sources: of batches by position, which counts on through their epochs; `len` is that of one epoch, not 0.
            temperature: of `shares`.
            seed: of the order.
        """
        self._sources, self._seed = sources, seed
        sizes = [len(source) for source in sources]
        self.counts = _apportioned(sum(sizes), shares(sizes, temperature))
        self._epoch: tuple[int, list[tuple[int, int]]] = (-1, [])

    def __len__(self) -> int:
        """Batches of one epoch."""
        return sum(self.counts)

    def __getitem__(self, position: int) -> Batch:  # type: ignore[override]
        source, own = self.place(position)
        return replace(self._sources[source][own], task=source)

    def __iter__(self) -> Iterator[Batch]:
        """Those of the first epoch."""
        return (self[position] for position in range(len(self)))

    @property
    def room(self) -> int:
        """Tokens of a packed row of any data set; 0 where none is packed."""
        return max(source.room for source in self._sources)

    def largest(self, times: int = 1) -> tuple[Batch, ...]:
        """Of each data set its longest rows in one batch, `times` over."""
        return tuple(replace(b, task=n) for n, source in enumerate(self._sources) for b in source.largest(times))

    def place(self, position: int) -> tuple[int, int]:
        """Which data set a batch is of, and its position there."""
        if position < 0:
            raise IndexError(f"there is no batch {position}")
        epoch, index = divmod(position, len(self))
        if self._epoch[0] != epoch:
            self._epoch = epoch, self._drawn(epoch)
        return self._epoch[1][index]

    def _drawn(self, epoch: int) -> list[tuple[int, int]]:
        """The batches of an epoch, those of each data set in order."""
        every = [source for source, count in enumerate(self.counts) for _ in range(count)]
        at = [epoch * count for count in self.counts]
        found = []
        for number in packing.order(len(every), self._seed, epoch):
            source = every[number]
            found.append((source, at[source]))
            at[source] += 1
        return found


def _apportioned(total: int, parts: Sequence[float]) -> tuple[int, ...]:
    """Whole numbers in proportion that add up: the largest remainders get what is left, and nobody gets none."""
    exact = [part * total for part in parts]
    counts = [max(1, int(each)) for each in exact]
    for number in sorted(range(len(parts)), key=lambda n: (int(exact[n]) - exact[n], n))[: max(0, total - sum(counts))]:
        counts[number] += 1
    while sum(counts) > total:
        counts[counts.index(max(counts))] -= 1
    return tuple(counts)
