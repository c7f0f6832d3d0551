"""How models share a device, and hosts a unit."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmos.kernel.arbiter.shares import Demand, divide

MINIMA = (0.1, 0.05)


def demand(
    model: str, device: str = "d", unit: str = "", now: dict[str, int] | None = None,
    batch: dict[str, int] | None = None, background: dict[str, int] | None = None,
) -> Demand:  # fmt: skip
    return Demand(model, device, unit, [now or {}, batch or {}, background or {}])


def test_nobody_has_work() -> None:
    assert divide([], MINIMA) == {}


def test_one_model_has_all_and_nothing_is_told() -> None:
    division = divide([demand("a", now={"u": 100, "v": 100})], MINIMA)["d"]
    assert division.shares == {} and division.budget == {}
    assert division.reason.text == "1 models of 2 users have work on d"


def test_models_share_by_the_weight_of_their_users() -> None:
    division = divide([demand("a", now={"u": 100}), demand("b", now={"v": 300})], MINIMA)["d"]
    assert division.shares == {"a": 0.25, "b": 0.75} and division.budget == {}
    assert division.reason.code == "device.shares" and division.reason.numbers["a"] == 0.25
    assert "shares a 0.25, b 0.75" in division.reason.text


def test_a_user_of_two_models_divides_his_weight() -> None:
    """He gets no more of the device than one who uses a single model."""
    division = divide([demand("a", now={"u": 100}), demand("b", now={"u": 100, "v": 100})], MINIMA)["d"]
    assert division.shares == {"a": 0.25, "b": 0.75}


def test_lower_classes_keep_their_minimum() -> None:
    division = divide([demand("a", now={"u": 100}, batch={"v": 100})], MINIMA)["d"]
    assert division.budget == {"interactive": 1.0, "batch": 0.1, "background": 0.05, "device": 1.0}
    assert "batch work keeps 0.1" in division.reason.text


def test_hosts_of_one_unit_share_it_by_their_users() -> None:
    found = divide([demand("a", "d1", "gpu", {"u": 100}), demand("b", "d2", "gpu", {"v": 100, "w": 200})], MINIMA)
    assert (found["d1"].budget["device"], found["d2"].budget["device"]) == (0.25, 0.75)
    assert found["d1"].shares == {} and "the device has 0.25 of its unit" in found["d1"].reason.text


def test_a_host_with_lower_work_alone_has_the_minimum_of_its_class() -> None:
    found = divide(
        [
            demand("a", "d1", "gpu", {"u": 100}), demand("b", "d2", "gpu", batch={"v": 900}),
            demand("c", "d3", "gpu", background={"w": 1}), demand("x", "other", "", batch={"v": 900}),
        ],
        MINIMA,
    )  # fmt: skip
    assert [found[name].budget["device"] for name in ("d1", "d2", "d3")] == [0.85, 0.1, 0.05]
    assert found["other"].budget == {}


users = st.dictionaries(st.sampled_from("uvwx"), st.integers(1, 1000), max_size=3)


@given(
    st.lists(
        st.tuples(st.sampled_from(["d1", "d2", "d3"]), users, users, users).filter(lambda one: any(one[1:])), max_size=6
    ),
    st.booleans(),
)
def test_everything_is_divided_and_nobody_gets_nothing(
    rows: list[tuple[str, dict[str, int], dict[str, int], dict[str, int]]], together: bool
) -> None:
    demands = [
        Demand(f"m{number}", device, "unit" if together else "", each) for number, (device, *each) in enumerate(rows)
    ]
    found = divide(demands, MINIMA)
    assert set(found) == {device for device, *_ in rows}
    for device, division in found.items():
        here = [one.model for one in demands if one.device == device]
        if len(here) > 1:
            assert set(division.shares) == set(here)
            assert sum(division.shares.values()) == pytest.approx(1, abs=0.001 * len(here))
        assert division.budget.get("device", 1.0) > 0
    if together and found:
        assert sum(one.budget.get("device", 1.0) for one in found.values()) == pytest.approx(1, abs=0.002)
    elif not together:
        assert all(one.budget.get("device", 1.0) == 1 for one in found.values())
