"""Which model of a device has the next step: by class of work, then by shares."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, cast

import pytest

from llmos.drivers.contract import Prompt, Request
from llmos.drivers.engine.runner import Runner
from llmos.drivers.engine.sharing import Sharing, by_runner


class Model:
    """A runner with requests of some classes, which never end."""

    def __init__(self, *classes: str) -> None:
        self.classes = list(classes)
        self.budget: Mapping[str, float] | None = None

    @property
    def busy(self) -> bool:
        return bool(self.classes)

    def requests(self) -> list[Request]:
        return [Request(str(at), "m", Prompt(), work_class=each) for at, each in enumerate(self.classes)]

    def set_budget(self, budget: Mapping[str, float]) -> None:
        self.budget = budget

    def step(self) -> list[Any]:
        return []


def runner(*classes: str) -> Runner:
    return cast(Runner, Model(*classes))


def times(sharing: Sharing, steps: int, seconds: Mapping[Runner, float]) -> Counter[Runner]:
    """How long each had the device."""
    took: Counter[Runner] = Counter()
    for _ in range(steps):
        chosen = sharing.next()
        assert chosen is not None and sharing.next() is chosen
        took[chosen] += seconds[chosen]  # type: ignore[assignment]
        sharing.stepped(chosen, seconds[chosen])
    return took


def sharing_of(*runners: Runner) -> Sharing:
    sharing = Sharing()
    for each in runners:
        sharing.add(each)
        sharing.add(each)
    return sharing


def test_models_divide_the_time_by_their_shares_however_long_their_steps_are() -> None:
    fast, slow = runner("batch"), runner("batch")
    sharing = sharing_of(fast, slow)
    took = times(sharing, 300, {fast: 0.01, slow: 0.07})
    assert took[slow] / took[fast] == pytest.approx(1.0, abs=0.1)
    sharing.set_shares({fast: 0.75, slow: 0.25})
    took = times(sharing, 400, {fast: 0.01, slow: 0.07})
    assert took[fast] / took[slow] == pytest.approx(3.0, rel=0.1)


def test_time_that_a_class_had_alone_counts_when_a_higher_one_comes() -> None:
    low, high = runner("background"), runner("interactive")
    seconds = {low: 0.02, high: 0.01}
    sharing = sharing_of(low, high)
    assert times(sharing, 300, seconds)[low] > 0, "it is owed a part of the time"
    sharing.remove(high)
    assert times(sharing, 25, seconds)[low] == pytest.approx(0.5)
    sharing.add(high)
    assert times(sharing, 900, seconds)[low] == 0, "half a second is the part of ten"
    assert times(sharing, 300, seconds)[low] > 0


def test_who_is_not_named_has_the_mean_and_nobody_has_nothing() -> None:
    one, two, new = (runner("batch") for _ in range(3))
    sharing = sharing_of(one, two, new)
    sharing.set_shares({one: 0.4, two: 0.2})
    took = times(sharing, 900, dict.fromkeys((one, two, new), 0.1))
    assert took[new] / took[two] == pytest.approx(1.5, rel=0.05)
    sharing.set_shares({one: 1.0, two: 0.0})
    assert times(sharing, 90, dict.fromkeys((one, two, new), 0.1))[two] > 0


def test_the_higher_class_goes_first_and_a_lower_one_gets_its_minimum() -> None:
    high, low = runner("batch", "interactive"), runner("background", "batch")
    sharing = sharing_of(low, high)
    sharing.set_budget({"batch": 0.2})
    took = times(sharing, 500, {high: 0.1, low: 0.1})
    assert took[low] / took.total() == pytest.approx(0.2, abs=0.02)
    assert cast(Model, low).budget == {"batch": 0.2}
    cast(Model, high).classes.clear()
    sharing.remove(high)
    assert times(sharing, 10, {low: 0.1})[low] == pytest.approx(1.0)
    late = runner("batch")
    sharing.add(late)
    assert cast(Model, late).budget == {"batch": 0.2}, "also whoever comes later"


def test_a_model_that_comes_back_catches_up_on_nothing() -> None:
    steady, seldom = runner("batch"), runner("batch")
    sharing = sharing_of(steady, seldom)
    sharing.remove(seldom)
    times(sharing, 100, {steady: 0.1})
    sharing.add(seldom)
    took = times(sharing, 20, {steady: 0.1, seldom: 0.1})
    assert took[seldom] == pytest.approx(took[steady], abs=0.11)


def test_a_model_without_work_left_is_forgotten() -> None:
    model = runner()
    sharing = sharing_of(model)
    assert sharing.step(model) == [] and sharing.next() is None and not list(sharing)
    sharing.add(runner("batch"))
    sharing.clear()
    assert sharing.next() is None


def test_shares_of_models_are_those_of_their_runners() -> None:
    base, alone = [runner(), runner()], [runner()]
    entries = cast(Any, {
        "base": SimpleNamespace(resident=SimpleNamespace(runners=base)),
        "adapter": SimpleNamespace(resident=SimpleNamespace(runners=base)),
        "alone": SimpleNamespace(resident=SimpleNamespace(runners=alone)),
        "asleep": SimpleNamespace(resident=None),
    })  # fmt: skip
    found = by_runner(entries, {"base": 0.2, "adapter": 0.3, "alone": 0.4, "asleep": 0.1, "gone": 0.1})
    assert found == {base[0]: 0.5, base[1]: 0.5, alone[0]: 0.4}
