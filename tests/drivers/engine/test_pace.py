"""How long steps take, learned from those that were."""

from __future__ import annotations

import pytest

from llmos.drivers.engine.pace import FLOPS, Pace


def test_predictions_grow_with_the_work_and_learn_from_it() -> None:
    pace = Pace(1_000_000)
    assert pace.seconds(100) == pytest.approx(100 * 2.0 * 1_000_000 / FLOPS)
    pace.observe(1, 0.5)
    assert pace.seconds(100) == pytest.approx(50.0)  # only single tokens are known
    pace.observe(200, 2.0)
    assert pace.seconds(100) == pytest.approx(1.0)
    pace.observe(200, 4.0)
    assert pace.seconds(100) == pytest.approx(100 * (0.8 * 0.01 + 0.2 * 0.02))
    assert pace.seconds(1) == pytest.approx(0.5)
