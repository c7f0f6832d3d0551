"""One model and what lies on its weights."""

from __future__ import annotations

import pytest

from llmos.kernel.arbiter.history import Key
from llmos.kernel.arbiter.residence import SECOND
from llmos.kernel.resident import TRANSITIONS, Event, Model, State


def model(state: State = State.AWAKE, **fields: object) -> Model:
    facts: dict[str, object] = {"keep_alive_s": 5.0, "pinned": False, "group": "", "used": 10 * SECOND, "bytes": 100}
    return Model(Key("/m", "1", "gpu0"), state=state, **{**facts, **fields})  # type: ignore[arg-type]


def test_each_event_leads_somewhere_from_somewhere() -> None:
    assert set(TRANSITIONS) == set(Event) and all(before for before, _ in TRANSITIONS.values())
    assert {after for _, after in TRANSITIONS.values()} == set(State)


def test_a_base_is_all_that_lies_on_it() -> None:
    beside = {"a": model(used=20 * SECOND, base="m", bytes=7, running=2), "b": model(State.ASLEEP, base="m")}
    base = model(adapters=beside)
    assert (base.active, base.last_used, base.freed, base.fixed) == (2, 20 * SECOND, 107, False)
    assert base.due() is None
    base.adapters["a"].running = 0
    assert base.due() == 25 * SECOND and base.adapters["a"].due() is None
    base.adapters["a"].pinned = True
    assert base.fixed and base.due() is None


@pytest.mark.parametrize(("granted", "active"), [(True, 1), (False, 0)])
def test_an_adapter_with_room_that_is_being_loaded_keeps_its_base(granted: bool, active: int) -> None:
    assert model(adapters={"a": model(State.LOADING, base="m", granted=granted)}).active == active
