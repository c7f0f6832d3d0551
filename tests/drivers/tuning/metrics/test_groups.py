"""Rates of groups against counting."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from llmos.drivers.tuning.metrics.groups import fairness

ITEMS = st.lists(st.tuples(st.booleans(), st.booleans(), st.sampled_from("abc")), min_size=1, max_size=25)


def share(values: list[bool]) -> float | None:
    return sum(values) / len(values) if values else None


def apart(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return max(known) - min(known) if len(known) > 1 else None


@given(ITEMS)
def test_rates_are_those_counted(items: list[tuple[bool, bool, str]]) -> None:
    said, wanted, groups = (list(column) for column in zip(*items, strict=True))
    found = fairness(torch.tensor(said), torch.tensor(wanted), groups)
    counted = {}
    for name in sorted(set(groups)):
        of = [(s, w) for s, w, group in items if group == name]
        right, wrong = ([s for s, w in of if w is wants] for wants in (True, False))
        counted[name] = len(of), share([s for s, _ in of]), share(right), share(wrong)
    assert list(found.groups) == list(counted)
    for name, rates in found.groups.items():
        mine_all = rates.items, rates.selected, rates.true_positive, rates.false_positive
        for mine, theirs in zip(mine_all, counted[name], strict=True):
            assert mine == (None if theirs is None else pytest.approx(theirs, abs=1e-6))
    selected, hits, slips = (apart([each[n] for each in counted.values()]) for n in (1, 2, 3))
    for one, other in ((found.demographic_parity, selected), (found.equal_opportunity, hits)):
        assert one == (None if other is None else pytest.approx(other, abs=1e-6))
    both = None if hits is None or slips is None else max(hits, slips)
    assert found.equal_odds == (None if both is None else pytest.approx(both, abs=1e-6))


def test_a_model_that_prefers_a_group_is_told() -> None:
    said, wanted = torch.tensor([True, True, False, False]), torch.tensor([True, True, True, True])
    found = fairness(said, wanted, ["a", "a", "b", "b"])
    assert (found.demographic_parity, found.equal_opportunity, found.equal_odds) == (1.0, 1.0, None)


def test_the_group_of_each_item_has_to_be_known() -> None:
    with pytest.raises(ValueError, match="of 1 the group is known"):
        fairness(torch.ones(2).bool(), torch.ones(2).bool(), ["a"])
