"""Whether draws follow given probabilities (Pearson's chi-square test)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping
from typing import Any

SURE = 4.0
"""Standard deviations of the normal distribution; a right sampler exceeds it once in 30 thousand seeds."""

FEWEST = 5.0


def follows(drawn: Iterable[Any], probabilities: Mapping[Any, float]) -> bool:
    """Whether the draws could come from the distribution; a draw of probability 0 never does.

    Rare outcomes are pooled; the critical value is the approximation of Wilson and Hilferty (1931).
    """
    counts: Counter[Hashable] = Counter(drawn)
    total = sum(counts.values())
    if any(probabilities.get(value, 0.0) == 0.0 for value in counts):
        return False
    common = [value for value, probability in probabilities.items() if probability * total >= FEWEST]
    cells = [(counts[value], probabilities[value] * total) for value in common]
    rest = (total - sum(seen for seen, _ in cells), total - sum(expected for _, expected in cells))
    if rest[1] >= FEWEST:
        cells.append(rest)
    elif rest[0] > FEWEST + SURE * math.sqrt(FEWEST):
        return False
    freedom = len(cells) - 1
    if freedom < 1:
        return True
    statistic = sum((seen - expected) ** 2 / expected for seen, expected in cells)
    share = 2.0 / (9.0 * freedom)
    return statistic < freedom * (1.0 - share + SURE * math.sqrt(share)) ** 3
