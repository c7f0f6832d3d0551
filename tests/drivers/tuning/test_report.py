"""A report says what a run has come to: compared with figures reckoned otherwise, and small however much there is."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from llmos.drivers.tuning import report as reports
from llmos.drivers.tuning.judging import Evaluated
from llmos.drivers.tuning.metrics import by_objective
from llmos.drivers.tuning.metrics.by_objective import Gathered
from llmos.drivers.tuning.objectives.causal import Causal
from llmos.drivers.tuning.objectives.classes import Rows
from llmos.drivers.tuning.objectives.protocol import Objective
from torch import Tensor

NAMES = ("bad", "good", "so-so")


def sums(count: int = 8, loss: float = 1.0) -> dict[str, Tensor]:
    ones = torch.ones(count, dtype=torch.float64)
    spread = torch.linspace(0.9, 1.1, count, dtype=torch.float64)
    return {"loss": loss * spread, "weight": ones, "right": ones / 2, "items": ones}


def classified(right: float, seed: int = 0, items: int = 80, names: tuple[str, ...] = NAMES) -> Evaluated:
    """So many of the items are said to be what they are."""
    of = torch.Generator().manual_seed(seed)
    wanted = torch.randint(len(names), (items,), generator=torch.Generator().manual_seed(9))
    said = torch.where(torch.rand(items, generator=of) < right, wanted, (wanted + 1) % len(names))
    scores = torch.randn(items, len(names), generator=of) * 0.1
    scores += 2.0 * torch.nn.functional.one_hot(said, len(names))
    return Evaluated(Gathered(scores, wanted, rows=torch.arange(items), names=names), sums(loss=1 - right / 2))


def made(before: Evaluated, after: Evaluated, objective: str = "classification", by: Objective | None = None,
         texts: Any = None) -> dict[str, Any]:  # fmt: skip
    return reports.report(objective, (by or Rows()).summary, before, after, texts)


def test_what_is_better_by_more_than_chance() -> None:
    found = made(classified(0.4), classified(0.9, 1))
    figures = found["figures"]
    whole = by_objective.figures("classification", classified(0.9, 1).gathered)
    assert {name: figures[name]["after"][0] for name in whole} == pytest.approx(whole, rel=1e-5)
    for name in ("accuracy", "f1_macro", "roc_auc", "loss"):
        assert figures[name]["better"] == "after", name
        assert figures[name]["difference"][0] == pytest.approx(
            figures[name]["after"][0] - figures[name]["before"][0], abs=1e-5
        )
    assert figures["accuracy"]["drawn"] == "rows" and figures["loss"]["drawn"] == "batches"
    assert found["rows"] == found["items"] == 80 and found["judged_by"] == "accuracy"
    turned = made(classified(0.9, 1), classified(0.4))["figures"]
    assert turned["accuracy"]["better"] == turned["loss"]["better"] == "before"


def test_what_chance_could_do_is_not_better() -> None:
    found = made(classified(0.5, 1), classified(0.52, 2))["figures"]["accuracy"]
    assert found["better"] == "" and found["difference"][1] < 0 < found["difference"][2]
    same = made(classified(0.5), classified(0.5))["figures"]
    assert all(each["difference"] == [0.0, 0.0, 0.0] and each["better"] == "" for each in same.values())


def test_differences_are_of_the_same_rows() -> None:
    """One of a hundred rows more: much less than each varies by itself, but no accident of the draws."""
    one = classified(0.5, items=100)
    scores = one.gathered.said.clone()
    wrong = (scores.argmax(1) != one.gathered.wanted).nonzero()[:12, 0]
    scores[wrong] = 5.0 * torch.nn.functional.one_hot(one.gathered.wanted[wrong], 3)
    other = Evaluated(Gathered(scores, one.gathered.wanted, rows=one.gathered.rows, names=NAMES), one.sums)
    found = made(one, other)["figures"]["accuracy"]
    assert found["better"] == "after" and found["difference"][1] > 0.05
    assert found["before"][2] > found["after"][1]  # the intervals themselves overlap


def test_of_tokens_batches_are_drawn() -> None:
    before, after = (Evaluated(Gathered(torch.empty(0), torch.empty(0)), sums(8, loss)) for loss in (3.0, 1.0))
    found = made(before, after, "causal-lm", Causal())
    assert found["figures"]["perplexity"]["after"][0] == pytest.approx(math.e, rel=1e-5)
    assert found["figures"]["perplexity"]["better"] == "after" and "classes" not in found and "rows" not in found
    one, other = (
        Evaluated(each.gathered, {name: value[:1] for name, value in each.sums.items()}) for each in (before, after)
    )
    alone = made(one, other, "causal-lm", Causal())["figures"]["loss"]
    assert len(alone["before"]) == 1 and alone["better"] == ""  # one batch says nothing about chance


@settings(deadline=None, max_examples=15)
@given(st.integers(2, 40), st.floats(0, 1), st.integers(0, 99))
def test_intervals_hold_their_value_and_confusions_all_items(items: int, right: float, seed: int) -> None:
    found = made(classified(right, seed, items), classified(1 - right, seed + 1, items))
    for each in found["figures"].values():
        for interval in (each["before"], each["after"], each["difference"]):
            assert interval[0] is None or len(interval) == 1 or interval[1] <= interval[0] <= interval[2]
    for stage in ("before", "after"):
        rows = found["classes"][stage]["confusion"]
        support = [each[3] for each in found["classes"][stage]["each"]]
        assert sum(map(sum, rows)) == items and [sum(row) for row in rows] == support
        accuracy = found["figures"]["accuracy"][stage][0]
        assert sum(rows[n][n] for n in range(3)) / items == pytest.approx(accuracy, abs=1e-5)
        assert sum(bin_[0] for bin_ in found["classes"][stage]["calibration"]["bins"]) == items


def test_each_class_by_hand() -> None:
    """Of two good ones one is said to be bad; the bad one is right."""
    scores = torch.tensor([[0.0, 3.0], [2.0, 0.0], [1.0, 0.0]])
    one = Evaluated(Gathered(scores, torch.tensor([1, 1, 0]), names=("bad", "good")), sums())
    found = made(one, one)["classes"]
    assert found["after"]["confusion"] == [[1, 0], [1, 1]]
    assert found["after"]["each"] == [[0.5, 1.0, pytest.approx(2 / 3, abs=1e-5), 1], [1.0, 0.5, 0.666667, 2]]
    [curve] = found["curves"]
    assert curve["class"] == "good" and curve["auc"] == [0.5, 0.5]
    assert curve["roc"] == [[0.0, 0.0], [0.0, 0.5], [1.0, 0.5], [1.0, 1.0]]


def test_the_worst_mistakes_come_with_their_text() -> None:
    found = made(classified(0.4), classified(0.7), texts=lambda row: f"row   number\n{row} " + "x" * 500)["mistakes"]
    assert 1 <= len(found) <= 10 and [each["by"] for each in found] == sorted((e["by"] for e in found), reverse=True)
    assert all(each["wanted"] != each["said"] and {each["wanted"], each["said"]} <= set(NAMES) for each in found)
    assert found[0]["text"].startswith(f"row number {found[0]['row']} x") and len(found[0]["text"]) == 200


def test_it_is_small_however_much_there_is() -> None:
    names = tuple(f"{n} " + "ü" * 100 for n in range(100))
    one = classified(0.3, items=1000, names=names)
    found = made(one, classified(0.6, 3, 1000, names), texts=lambda row: "ß" * 5000)
    assert len(json.dumps(found).encode()) <= reports.BYTES
    shown = found["classes"]
    assert shown["names"][-1] == "others" and len(shown["names"]) == 24 and shown["left_out"] == 77
    assert len(shown["after"]["confusion"]) == 24 and sum(map(sum, shown["after"]["confusion"])) == 1000
    assert len(shown["curves"]) == 6 and all(len(each["roc"]) <= 49 for each in shown["curves"])
    json.loads(json.dumps(found, allow_nan=False))


def test_what_does_not_fit_goes_in_order() -> None:
    whole = {"figures": {}, "mistakes": ["x" * 500], "classes": "y" * 500}
    assert reports.bounded(whole, 5000) == whole
    assert reports.bounded(whole, 800) == {"figures": {}, "classes": "y" * 500, "cut": ["mistakes"]}
    assert reports.bounded(whole, 100) == {"figures": {}, "cut": ["mistakes", "classes"]}


def test_others_have_a_turn() -> None:
    turns: list[None] = []
    one = classified(0.5, items=8000)
    reports.report("classification", Rows().summary, one, one, between=lambda: turns.append(None))
    assert len(turns) >= 10


def test_no_number_is_none() -> None:
    assert reports.rounded({"a": [math.nan, math.inf, 1.23456789], "b": (1, "x")}) == {
        "a": [None, None, 1.23457], "b": [1, "x"]
    }  # fmt: skip
