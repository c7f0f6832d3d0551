"""Which requests of the null device go on in a step: as many of each model as it has slots, the others are parked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from llmos.drivers.contract import Request
from llmos.drivers.engine.turns import Dues, rank


class NullTurns:
    """By class of work, then in the order of their coming; a lower class is owed a part of the steps."""

    def __init__(self) -> None:
        self._dues = Dues()

    def set_budget(self, budget: Mapping[str, float]) -> None:
        self._dues.set(budget)

    def choose(self, requests: Sequence[Request], slots: Mapping[str, int]) -> set[str]:
        """The ids of those that go on; every step counts as long as any other."""
        present = {rank(request) for request in requests}
        turn = self._dues.turn(present)
        taken: Counter[str] = Counter()
        chosen = []
        for request in sorted(requests, key=lambda request: (rank(request) != turn, rank(request))):
            if taken[request.model] < slots.get(request.model, 1):
                taken[request.model] += 1
                chosen.append(request)
        took = Counter(rank(request) for request in chosen)
        self._dues.spent(present, {its: count / len(chosen) for its, count in took.items()}, turn)
        return {request.id for request in chosen}
