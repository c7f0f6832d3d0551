"""The bound is below the true optimum and close to it; the clairvoyant policy is above and close to it."""

from __future__ import annotations

from itertools import combinations
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmos.kernel.arbiter.policies import NAMES, policy_named
from llmos.kernel.arbiter.residence import Candidate
from llmos.kernel.arbiter.simulation.clairvoyant import Clairvoyant, Informed, bound, problem_of
from llmos.kernel.arbiter.simulation.replay import replay
from llmos.kernel.arbiter.simulation.traces import Model, Request, Trace, trace

DEVICE = 12


def optimum(made: Trace) -> float:
    """The fewest seconds of loads, by trying which models stay at each request."""
    best: dict[frozenset[int], float] = {frozenset(): 0.0}
    for request in made.requests:
        after: dict[frozenset[int], float] = {}
        for held, spent in best.items():
            spent += 0 if request.model in held else made.models[request.model].load_s
            others = held - {request.model}
            room = made.capacity - made.models[request.model].bytes
            for count in range(len(others) + 1):
                for kept in combinations(sorted(others), count):
                    if sum(made.models[each].bytes for each in kept) <= room:
                        now = frozenset({*kept, request.model})
                        after[now] = min(after.get(now, inf), spent)
        best = after
    return min(best.values())


models = st.builds(Model, st.just("m"), st.integers(1, DEVICE), st.floats(0.1, 20), st.just(60.0))


@st.composite
def traces(draw: st.DrawFn, run_s: float = 0.0) -> Trace:
    held = tuple(draw(st.lists(models, min_size=2, max_size=5)))
    asked = draw(st.lists(st.integers(0, len(held) - 1), min_size=1, max_size=14))
    return Trace("drawn", 0, DEVICE, held, tuple(Request(float(at), model, run_s) for at, model in enumerate(asked)))


@given(traces())
def test_nobody_is_below_the_bound_and_the_best_is_not_far_from_it(made: Trace) -> None:
    best, least = optimum(made), bound(made, steps=120)
    assert least <= best + 1e-9
    assert least >= max(sum(made.models[each].load_s for each in {r.model for r in made.requests}), best * 0.6) - 1e-9


@given(traces(run_s=1.7))
def test_the_bound_holds_for_requests_that_wait_for_room(made: Trace) -> None:
    outcomes = [replay(made, policy_named(name, 2)) for name in NAMES] + [replay(made, Clairvoyant(made))]
    late = max(outcome.deferred_s for outcome in outcomes)
    assert bound(made, late, steps=40) <= min(outcome.reload_s for outcome in outcomes) + 1e-9


def test_models_of_one_size_and_cost_are_beladys_problem() -> None:
    held = tuple(Model(str(index), 4, 1.0, 60) for index in range(4))
    asked = [0, 1, 2, 3, 0, 1, 3, 2, 0, 1, 2, 3, 0, 1]
    made = Trace("equal", 0, DEVICE, held, tuple(Request(float(at), model, 0) for at, model in enumerate(asked)))
    clairvoyant = replay(made, Clairvoyant(made)).reload_s
    assert clairvoyant == optimum(made) == 6 and bound(made) == pytest.approx(6, abs=0.05)


def test_a_trace_on_which_nothing_can_be_saved_or_all() -> None:
    alone = Trace("alone", 0, DEVICE, (Model("a", 3, 2.0, 60), Model("b", 12, 5.0, 60)), (Request(0, 0, 0),))
    assert bound(alone) == 2.0 and problem_of(alone).intervals == ()
    again = Trace("again", 0, DEVICE, alone.models, (Request(0, 0, 0), Request(1, 0, 0), Request(2, 0, 0)))
    assert bound(again) == 2.0
    apart = Trace("apart", 0, DEVICE, alone.models, (Request(0, 0, 0), Request(1, 1, 0), Request(2, 0, 0)))
    assert bound(apart) == pytest.approx(9.0, abs=0.01)


def test_more_steps_make_the_bound_tighter_and_lateness_weaker() -> None:
    made = trace("zipf-1.0", 1, 500)
    rough, fine = bound(made, steps=1), bound(made, steps=100)
    best = replay(made, Clairvoyant(made)).reload_s
    assert rough < fine < best and fine > 0.85 * best
    assert bound(made, late_s=60.0, steps=100) < fine


@pytest.mark.parametrize("kind", [Clairvoyant, Informed])
def test_policies_that_know_the_trace_can_be_carried_out(kind: type[Clairvoyant | Informed]) -> None:
    made = trace("loop", 1, 30, models=10)
    policy = kind(made)
    assert policy.surplus([]) == 0 and policy.rule and replay(made, policy).evictions > 0
    assert policy.numbers(Candidate("0", 1), 0) == {}


def test_who_knows_how_often_keeps_what_is_wanted_most() -> None:
    asked = [0, 1, 0, 2, 0, 1, 0, 2, 0, 1, 0]
    held = tuple(Model(str(index), 6, 1.0, 60) for index in range(3))
    made = Trace("by hand", 0, DEVICE, held, tuple(Request(float(at), model, 0) for at, model in enumerate(asked)))
    assert replay(made, Informed(made)).loads == 6
