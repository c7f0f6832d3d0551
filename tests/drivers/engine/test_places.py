"""What the step scheduler knows of a row, and bounds that make no sense."""

from __future__ import annotations

import pytest

from llmos.drivers.engine.places import Place, StepLimits
from llmos.drivers.engine.steps import Row


def test_a_row_decodes_when_one_token_after_its_prompt_is_left() -> None:
    row = Row("r", [1, 2, 3], rank=2)
    place = Place(row, 1, prompt=3)
    assert (place.left, place.decodes, place.rank) == (3, False, 2)
    row.computed = 2
    assert (place.left, place.decodes) == (1, False), "the last of the prompt is no answer yet"
    row.computed, row.ahead = 3, 1
    assert (place.left, place.decodes) == (1, True)


@pytest.mark.parametrize("wrong", [{"rows": 0}, {"least": 0}, {"least": 600}, {"rows": 64, "tokens": 66, "chunk": 8}])
def test_a_step_has_room_for_a_row_and_a_prompt(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="too little"):
        StepLimits(**wrong)
