"""Where models are and when they sleep, with a clock of its own."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from llmos.kernel.arbiter.policies import LeastRecentlyUsed
from llmos.kernel.residency import SECOND, Event, Residency, State
from llmos.syscalls.errors import BadState, NotFound


def awake(residency: Residency, model: str, now: int = 0, keep_alive: float = -1, size: int = 10) -> None:
    residency.add(model, "cpu0", now, keep_alive)
    residency.event(model, Event.LOAD, now)
    residency.event(model, Event.LOADED, now)
    residency.set_bytes(model, size)


@pytest.fixture
def residency() -> Residency:
    return Residency()


def test_a_life(residency: Residency) -> None:
    residency.add("m1", "cpu0", 0)
    events = (
        Event.LOAD, Event.LOADED, Event.SLEEP, Event.SLEPT, Event.WAKE, Event.LOADED, Event.SLEEP, Event.SLEEP_FAILED,
        Event.LOST, Event.LOAD, Event.LOAD_FAILED, Event.LOAD, Event.LOADED, Event.UNLOAD,
    )  # fmt: skip
    seen = [residency.state("m1"), *(residency.event("m1", event, 0) for event in events)]
    assert seen == [
        "cold", "loading", "awake", "sleeping", "asleep", "loading", "awake", "sleeping", "awake",
        "lost", "loading", "failed", "loading", "awake", "cold",
    ]  # fmt: skip


LEGAL = {
    State.COLD: {Event.LOAD, Event.UNLOAD},
    State.LOADING: {Event.LOADED, Event.LOAD_FAILED, Event.LOST, Event.NO_ROOM},
    State.AWAKE: {Event.SLEEP, Event.LOST, Event.UNLOAD},
    State.SLEEPING: {Event.SLEPT, Event.SLEEP_FAILED, Event.LOST, Event.GONE},
    State.ASLEEP: {Event.WAKE, Event.LOST, Event.GONE, Event.UNLOAD},
    State.FAILED: {Event.LOAD, Event.UNLOAD},
    State.LOST: {Event.LOAD, Event.UNLOAD},
}
REACH = {
    State.COLD: [],
    State.LOADING: [Event.LOAD],
    State.AWAKE: [Event.LOAD, Event.LOADED],
    State.SLEEPING: [Event.LOAD, Event.LOADED, Event.SLEEP],
    State.ASLEEP: [Event.LOAD, Event.LOADED, Event.SLEEP, Event.SLEPT],
    State.FAILED: [Event.LOAD, Event.LOAD_FAILED],
    State.LOST: [Event.LOAD, Event.LOST],
}


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("event", Event)
def test_what_is_possible_in_each_state(residency: Residency, state: State, event: Event) -> None:
    residency.add("m1", "cpu0", 0)
    for step in REACH[state]:
        residency.event("m1", step, 0)
    assert residency.state("m1") is state
    if event in LEGAL[state]:
        residency.event("m1", event, 0)
    else:
        with pytest.raises(BadState, match=f"m1 is {state}; {event} needs") as error:
            residency.event("m1", event, 0)
        assert error.value.state == state and residency.state("m1") is state


def test_unknown_and_repeated_models(residency: Residency) -> None:
    with pytest.raises(NotFound, match="'m9'"):
        residency.state("m9")
    residency.add("m1", "cpu0", 0)
    with pytest.raises(ValueError):
        residency.add("m1", "cpu0", 0)
    residency.drop("m1")
    residency.drop("m1")
    residency.end("m1", 0)
    with pytest.raises(NotFound):
        residency.used("m1", 0)


def test_an_idle_model_is_proposed_for_sleep_until_it_sleeps(residency: Residency) -> None:
    awake(residency, "m1", now=0, keep_alive=5)
    assert residency.next_tick() == 5 * SECOND and residency.tick(5 * SECOND - 1) == []
    (action,) = residency.tick(6 * SECOND)
    assert action.model == "m1" and action.reason.code == "model.idle"
    assert action.reason.numbers == {"idle_s": 6.0, "keep_alive_s": 5}
    residency.used("m1", 1 * SECOND)
    assert "it was not used for 6.5 s; keep_alive is 5 s" in residency.tick(int(7.5 * SECOND))[0].reason.text
    assert len(residency.tick(6 * SECOND)) == 1
    residency.event("m1", Event.SLEEP, 6 * SECOND)
    assert residency.tick(9 * SECOND) == [] and residency.next_tick() is None


def test_use_starts_the_time_again(residency: Residency) -> None:
    awake(residency, "m1", keep_alive=5)
    residency.used("m1", 4 * SECOND)
    assert residency.tick(8 * SECOND) == [] and len(residency.tick(9 * SECOND)) == 1


def test_a_busy_model_never_sleeps(residency: Residency) -> None:
    awake(residency, "m1", keep_alive=0)
    residency.begin("m1", 1)
    residency.begin("m1", 2)
    assert residency.tick(99 * SECOND) == [] and residency.victims("cpu0", 1, 99) == []
    with pytest.raises(BadState, match="2 requests under way"):
        residency.event("m1", Event.SLEEP, 3)
    residency.end("m1", 4)
    assert residency.tick(99 * SECOND) == []
    residency.end("m1", 5)
    residency.end("m1", 6)
    assert residency.next_tick() == 5 and len(residency.tick(5)) == 1


def test_a_host_that_dies_ends_what_ran(residency: Residency) -> None:
    awake(residency, "m1", keep_alive=0)
    residency.begin("m1", 1)
    residency.event("m1", Event.LOST, 2)
    residency.end("m1", 3)
    residency.event("m1", Event.LOAD, 4)
    residency.event("m1", Event.LOADED, 7)
    assert residency.next_tick() == 7


def test_pins_and_keep_alive_can_change(residency: Residency) -> None:
    awake(residency, "m1")
    assert residency.next_tick() is None and not residency.pinned("m1") and residency.evictable("m1")
    residency.keep_alive("m1", 2, 10)
    assert residency.next_tick() == 10 + 2 * SECOND
    residency.pin("m1", True, 20)
    assert residency.next_tick() is None and residency.pinned("m1") and not residency.evictable("m1")
    residency.pin("m1", False, 30)
    assert residency.next_tick() == 30 + 2 * SECOND


def test_a_model_can_start_pinned(residency: Residency) -> None:
    residency.add("m1", "cpu0", 0, 0, pinned=True)
    residency.event("m1", Event.LOAD, 0)
    residency.event("m1", Event.LOADED, 0)
    assert residency.tick(10**12) == []


def test_the_next_tick_is_the_earliest(residency: Residency) -> None:
    awake(residency, "m1", keep_alive=5)
    awake(residency, "m2", keep_alive=3)
    assert residency.next_tick() == 3 * SECOND


def test_victims_are_enough_and_in_the_order_of_the_policy() -> None:
    residency = Residency(LeastRecentlyUsed())
    for index, model in enumerate(["m1", "m2", "m3"]):
        awake(residency, model, now=index)
    residency.used("m1", 10)
    chosen = residency.victims("cpu0", 15, 2 * SECOND)
    assert [(sleep.model, sleep.bytes) for sleep in chosen] == [("m2", 10), ("m3", 10)]
    assert chosen[0].reason.code == "model.evicted" and chosen[0].idle_s == 2 - 1e-9
    assert chosen[0].reason.numbers == {"needed": 15, "frees": 10, "idle_s": 2 - 1e-9}
    assert chosen[0].reason.text == "cpu0 is short of 15 B, it holds 10 B and was not used for 2.0 s"
    assert chosen[0].reason.rule == "least recently used first; never pinned, never busy"
    assert [s.model for s in residency.victims("cpu0", 10, 0)] == ["m2"]
    assert residency.victims("cpu0", 31, 0) == [] and residency.victims("gpu0", 1, 0) == []
    assert residency.victims("cpu0", 0, 0) == []


def test_the_model_whose_absence_costs_least_leaves_and_its_reason_has_the_numbers(residency: Residency) -> None:
    for model, wake_s in (("slow", 8.0), ("quick", 1.0)):
        awake(residency, model)
        residency.measured(model, "wake", wake_s)
    for now in range(4):
        residency.used("quick", now * SECOND)
        residency.used("slow", now * SECOND)
    residency.used("quick", 4 * SECOND)
    (gone,) = residency.victims("cpu0", 10, 5 * SECOND)
    assert (gone.model, gone.reload_s, gone.idle_s) == ("quick", 1.0, 1.0)
    assert gone.reason.numbers["reload_s"] == 1.0 and gone.reason.numbers["uses_per_hour"] > 0
    residency.used("quick", 5 * SECOND, weight=100)
    assert [s.model for s in residency.victims("cpu0", 10, 6 * SECOND)] == ["slow"]


def test_what_was_learned_belongs_to_the_weights_not_to_the_loaded_model(residency: Residency) -> None:
    residency.add("m1", "cpu0", 0, path="/a", version="1")
    residency.set_bytes("m1", 10)
    residency.measured("m1", "wake", 5.0)
    residency.exchanged("m1", "/a", "2")
    residency.drop("m1")
    for version, expected in (("1", 5.0), ("2", 5.0), ("3", 5.0)):
        residency.add("m1", "cpu0", 0, path="/a", version=version)
        residency.event("m1", Event.LOAD, 0)
        residency.event("m1", Event.LOADED, 0)
        residency.set_bytes("m1", 10 if version != "3" else 20)
        (gone,) = residency.victims("cpu0", 1, 0)
        assert gone.reload_s == (expected if version != "3" else 10.0)  # 3 was never measured: by bytes
        residency.drop("m1")


def test_victims_are_never_pinned_or_empty_or_asleep(residency: Residency) -> None:
    awake(residency, "pinned")
    residency.pin("pinned", True, 0)
    awake(residency, "empty", size=0)
    awake(residency, "asleep")
    residency.event("asleep", Event.SLEEP, 0)
    assert residency.victims("cpu0", 1, 0) == []


class Life(RuleBasedStateMachine):
    """No order of events leads out of the seven states, and nothing busy or pinned is ever proposed."""

    def __init__(self) -> None:
        super().__init__()
        self.residency = Residency()
        self.now = 0
        self.running = dict.fromkeys(["a", "b"], 0)
        self.residency.add("a", "cpu0", 0, 1)
        self.residency.add("b", "cpu0", 0, 0)
        for model in self.running:
            self.residency.set_bytes(model, 5)

    models = st.sampled_from(["a", "b"])

    @rule(model=models, event=st.sampled_from(Event), wait=st.integers(0, 2))
    def event(self, model: str, event: Event, wait: int) -> None:
        self.now += wait * SECOND
        before = self.residency.state(model)
        try:
            self.residency.event(model, event, self.now)
        except BadState:
            assert self.residency.state(model) is before
            assert event not in LEGAL[before] or (event is Event.SLEEP and self.running[model])
            return
        assert event in LEGAL[before]
        if event in (Event.LOST, Event.GONE, Event.UNLOAD):
            self.running[model] = 0

    @rule(model=models)
    def begin(self, model: str) -> None:
        if self.residency.state(model) is State.AWAKE:
            self.residency.begin(model, self.now)
            self.running[model] += 1

    @rule(model=models)
    def end(self, model: str) -> None:
        self.residency.end(model, self.now)
        self.running[model] = max(self.running[model] - 1, 0)

    @rule(model=models, pinned=st.booleans())
    def pin(self, model: str, pinned: bool) -> None:
        self.residency.pin(model, pinned, self.now)

    @invariant()
    def proposals_can_be_carried_out(self) -> None:
        later = self.now + 10 * SECOND
        proposed = {s.model for s in self.residency.tick(later)}
        for model in proposed | {s.model for s in self.residency.victims("cpu0", 5, later)}:
            assert self.residency.state(model) is State.AWAKE
            assert not self.running[model] and not self.residency.pinned(model)
        due = self.residency.next_tick()
        assert (due is not None) == bool(proposed)


Life.TestCase.settings = settings(max_examples=50, stateful_step_count=40, deadline=None)
TestLife = Life.TestCase
