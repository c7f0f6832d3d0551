"""How groups fare, against a case that was counted by hand."""

from __future__ import annotations

import json

import pytest
import torch
from llmos.drivers.tuning.fairness import OTHERS, fairness
from llmos.drivers.tuning.metrics.by_objective import Gathered


def gathered(said: list[int], wanted: list[int], classes: int = 2) -> Gathered:
    scores = torch.nn.functional.one_hot(torch.tensor(said), classes).float()
    return Gathered(scores, torch.tensor(wanted), rows=torch.arange(len(said)), names=("no", "yes"))


def test_a_case_by_hand() -> None:
    """Of a: 2 of 4 are taken, both of the right ones and none of the wrong ones. Of b: 3 of 4, one of one and two of
    three."""
    after = gathered([1, 1, 0, 0, 1, 1, 1, 0], [1, 1, 0, 0, 1, 0, 0, 0])
    before = gathered([0] * 8, [1, 1, 0, 0, 1, 0, 0, 0])
    found = fairness(before, after, list("aaaabbbb"))
    assert found["each"]["a"] == {"rows": 4, "accuracy": 1.0, "f1_macro": 1.0}
    assert found["each"]["b"]["accuracy"] == 0.5 and found["each"]["b"]["rows"] == 4
    assert found["differences"] == {"yes": [0.25, 0.0, pytest.approx(2 / 3)]}
    assert found["differences_before"] == {"yes": [0.0, 0.0, 0.0]}


def test_many_groups_and_classes_stay_small() -> None:
    wanted = [n % 12 for n in range(200)]
    many = gathered(wanted, wanted, 12)
    found = fairness(many, many, [f"{n // 2} " + "x" * 99 for n in range(200)])
    assert len(found["each"]) == 17 and found["each"][OTHERS]["rows"] == 200 - 32
    assert len(found["differences"]) == 8 and {"no", "yes", "2"} <= found["differences"].keys()
    assert max(map(len, found["each"])) == 40 and len(json.dumps(found)) < 4000
