"""Stop strings in a text that arrives in pieces."""

from __future__ import annotations

from collections.abc import Sequence

from llmos.syscalls.errors import BadArgument

MOST_STOPS = 64
LONGEST_STOP = 1024


class StopMatcher:
    """Holds back what may still become a stop string; how the text was cut into pieces makes no difference.

    The stop string that is complete first ends the text, the longest of several that end together. Raises BadArgument
    for an empty one, and for more or longer ones than can be looked for at every token.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        if not all(stops):
            raise BadArgument("a stop string is empty", name="stop", got="''", want="at least one character")
        if len(stops) > MOST_STOPS or any(len(stop) > LONGEST_STOP for stop in stops):
            want = f"at most {MOST_STOPS} of at most {LONGEST_STOP} characters"
            got = f"{len(stops)}, the longest of {max(map(len, stops))} characters"
            raise BadArgument(f"stop strings: {got}; {want} are taken", name="stop", got=got, want=want)
        self._stops = tuple(stops)
        self._held = ""
        self.matched: str | None = None

    def feed(self, text: str) -> str:
        """What is certainly part of the answer now. After a match nothing is."""
        if self.matched is not None or not self._stops:
            return text if self.matched is None else ""
        held = self._held + text
        found = [(at + len(stop), at, stop) for stop in self._stops if (at := held.find(stop)) >= 0]
        if found:
            _, at, self.matched = min(found)
            self._held = ""
            return held[:at]
        keep = self._possible(held)
        self._held = held[len(held) - keep :]
        return held[: len(held) - keep]

    def flush(self) -> str:
        """What was held back, now that nothing follows."""
        held, self._held = self._held, ""
        return held

    def _possible(self, text: str) -> int:
        """The length of the longest end of the text that begins a stop string."""
        longest = max(map(len, self._stops)) - 1
        for length in range(min(longest, len(text)), 0, -1):
            if any(stop.startswith(text[-length:]) for stop in self._stops):
                return length
        return 0
