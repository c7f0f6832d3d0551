"""Models that do not fit together, in every order of events: no byte too many, no request lost, no wait for ever."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from scripted import MEMORY, inside, loaded, rows

from llmos.kernel.residency import State
from llmos.syscalls.driver import PlanRows

SIZES = {"small": 20, "middle": 35, "large": 60, "rival": 45}
"""Percent of the device."""
GROUPS = {"middle": "!apart", "rival": "!apart"}
NAMES = st.sampled_from(sorted(SIZES))
LONG = 40.0


class Models(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        folder = Path(tempfile.mkdtemp(prefix="residency-"))
        self.stack.callback(shutil.rmtree, folder)
        self.kernel = self.stack.enter_context(inside(folder, drivers="null0,models"))
        self.host = self.kernel.null
        self.sizes: dict[str, int] = {}
        self.host.answers.update(plan=self.plan, load=self.load, wake=self.wake)
        self.program = self.kernel.program()
        self.handles: dict[str, int] = {}
        for name in SIZES:
            options = {"group": GROUPS.get(name, "")}
            self.handles[name] = self.program.call("load_model", path=f"/models/{name}", options=options)["handle"]
        self.ids = {model.name: model.id for model in self.kernel.kernel.models.by_id.values()}
        self.requests: set[int] = set()
        self.pinned: set[str] = set()

    def plan(self, body: Mapping[str, Any]) -> PlanRows:
        return PlanRows(rows=rows(size_of(body)))

    def load(self, body: Mapping[str, Any]) -> Any:
        self.sizes[body["id"]] = size_of(body)
        return loaded(size_of(body))

    def wake(self, body: Mapping[str, Any]) -> Any:
        return loaded(self.sizes[body["id"]])

    @rule(name=NAMES)
    def ask(self, name: str) -> None:
        self.requests.add(self.program.start(self.handles[name], "x"))

    @precondition(lambda self: self.host.held["submit"])
    @rule()
    def answer(self) -> None:
        self.host.release("submit")

    @rule(seconds=st.sampled_from([0.1, 1.0, 3.0, LONG]))
    def wait(self, seconds: float) -> None:
        self.kernel.advance(seconds)

    @precondition(lambda self: self.requests)
    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        self.program.cancel(data.draw(st.sampled_from(sorted(self.requests))))

    @rule(name=NAMES)
    def sleep(self, name: str) -> None:
        self.program.send("control_object", handle=self.handles[name], action="sleep", options={})

    @rule(name=NAMES)
    def pin(self, name: str) -> None:
        if name not in self.pinned and len(self.pinned) < 1 and name != "large":
            self.pinned.add(name)
            self.program.control(self.handles[name], "pin")

    @rule()
    def unpin(self) -> None:
        for name in self.pinned:
            self.program.control(self.handles[name], "unpin")
        self.pinned.clear()

    @rule()
    def host_dies(self) -> None:
        self.host.dies()
        self.host.starts()

    def state(self, name: str) -> State:
        return self.kernel.kernel.residency.state(self.ids[name])

    @invariant()
    def never_more_than_the_device(self) -> None:
        kernel = self.kernel.kernel
        here = [name for name in SIZES if self.state(name) in (State.AWAKE, State.SLEEPING)]
        assert sum(MEMORY * SIZES[name] // 100 for name in here) <= MEMORY
        assert kernel.ledger.excess("null0") == 0
        assert all(row.ledger >= 0 for row in kernel.ledger.rows("null0"))

    @invariant()
    def what_runs_is_awake_and_rivals_are_not_both(self) -> None:
        for name in SIZES:
            if self.kernel.kernel.scheduler.running(self.ids[name]):
                assert self.state(name) in (State.AWAKE, State.LOST, State.LOADING), name
        assert not all(self.state(name) is State.AWAKE for name in GROUPS)

    @invariant()
    def who_waits_has_somebody_to_wait_for(self) -> None:
        """A model with requests is on its way, awake, or lost; and only models that somebody waits for drain others."""
        kernel = self.kernel.kernel
        for name, id in self.ids.items():
            model = kernel.models.by_id[id]
            if kernel.scheduler.waiting(id) and model.loading is None:
                assert self.state(name) in (State.AWAKE, State.LOST), name

    def teardown(self) -> None:
        try:
            self.unpin()
            for _ in range(200):
                self.kernel.advance(LONG)
                while self.host.held["submit"]:
                    self.host.release("submit")
                self.program.drain()
                if all(self.program.done(number) for number in self.requests):
                    break
            for number in self.requests:
                answer = self.program.wait(number)  # each has one, and nothing comes after it
                assert answer.error is None or type(answer.error).__name__ in ("Cancelled", "PeerGone", "Busy")
            assert not self.kernel.kernel.scheduler.waiting() and not self.kernel.kernel.scheduler.running()
        finally:
            self.stack.close()


def size_of(body: Mapping[str, Any]) -> int:
    return MEMORY * SIZES[body["model"]["path"].removeprefix("/")] // 100


Models.TestCase.settings = settings(max_examples=15, stateful_step_count=25, deadline=None)
TestModels = Models.TestCase
