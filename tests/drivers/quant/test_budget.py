"""Which layers are kept wider."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmos.drivers.ops.quantized import Scheme
from llmos.drivers.quant.budget import Rung, within_budget
from llmos.syscalls.errors import BadArgument


def ladder(size: int, error: float) -> list[Rung]:
    return [Rung(Scheme(4), size, error), Rung(Scheme(8), 2 * size, error / 100), Rung(None, 4 * size, 0.0)]


def test_the_layer_that_suffers_most_for_its_size_is_widened_first() -> None:
    ladders = {"good": ladder(100, 0.01), "bad": ladder(100, 0.2), "large": ladder(1000, 0.3)}
    chosen = within_budget(ladders, 1300)
    assert {name: rung.bytes for name, rung in chosen.items()} == {"good": 100, "bad": 200, "large": 1000}
    assert all(rung.scheme == Scheme(4) for rung in within_budget(ladders, 1200).values())
    assert all(rung.scheme is None for rung in within_budget(ladders, 4800).values())
    with pytest.raises(BadArgument, match="takes 1200 bytes"):
        within_budget(ladders, 1199)


sizes = st.dictionaries(st.text(min_size=1, max_size=3), st.tuples(st.integers(1, 50), st.floats(0.001, 1)), min_size=1)


@given(sizes, st.integers(0, 400))
def test_it_fits_and_nothing_that_helps_would_fit_too(layers: dict[str, tuple[int, float]], more: int) -> None:
    ladders = {name: ladder(size, error) for name, (size, error) in layers.items()}
    budget = sum(size for size, _ in layers.values()) + more
    chosen = within_budget(ladders, budget)
    left = budget - sum(rung.bytes for rung in chosen.values())
    assert left >= 0
    for name, rung in chosen.items():
        assert not [each for each in ladders[name] if each.error < rung.error and each.bytes - rung.bytes <= left]
