"""How long a search may take: seconds of computing, and of being under way, counted on through interruptions."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from .space import Search


class Budget:
    """Counts from `spent`, which an earlier process left. `clock` gives seconds."""

    def __init__(self, search: Search, spent: Mapping[str, float], clock: Callable[[], float]) -> None:
        self._most = {"device": search.device_seconds, "wall": search.seconds}
        self._clock, self._began = clock, clock()
        self._before = {name: spent.get(name, 0.0) for name in self._most}
        self._waited = 0.0

    def waiting(self, yield_: Callable[[], None]) -> Callable[[], None]:
        """The same call; how long it takes is no computing."""

        def given_way() -> None:
            before = self._clock()
            yield_()
            self._waited += self._clock() - before

        return given_way

    def computed(self) -> float:
        """Seconds of computing in this process: a clock that stands while others have their turn."""
        return self._clock() - self._began - self._waited

    def spent(self) -> Mapping[str, float]:
        """Seconds in all: `device`, `wall`."""
        wall = self._clock() - self._began
        return {"device": self._before["device"] + self.computed(), "wall": self._before["wall"] + wall}

    @property
    def share(self) -> float:
        """How much is used up, from 0; 1 and more where nothing is left."""
        spent = self.spent()
        return max((spent[name] / most for name, most in self._most.items() if most), default=0.0)
