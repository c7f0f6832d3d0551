"""A step ahead of what is known: the same answers as when each step is waited for, and nothing left behind."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from fake_cuda import DEVICE
from lanes import Lagging, lane_engine, last, left_behind, run, runner
from lora_folders import base_of, save_adapter
from simulated_cuda import SimulatedCuda, SimulatedPlace
from tiny_models import PROMPT, ask, done, source_of

from llmos.drivers.contract import ChunkEvent, DoneEvent, FailedEvent, LoadSettings, Request, StepEvent
from llmos.drivers.engine.capture import Capture, Eager
from llmos.drivers.engine.engine import Engine
from llmos.drivers.engine.lane.lane import Launched
from llmos.drivers.engine.lane.runner import LaneRunner
from llmos.drivers.engine.lane.settings import Settings
from llmos.drivers.engine.place import Processor
from llmos.drivers.engine.steps import Row, RowStep, StepPlan
from llmos.drivers.engine.turns import CLASSES
from llmos.drivers.ops.cpu.ops import register_native
from llmos.drivers.ops.reference import register_reference
from llmos.drivers.ops.table import OpTable
from llmos.syscalls.errors import DeviceFault, NoDeviceMemory, TimedOut

OTHERS = (PROMPT[:7], PROMPT[3:], PROMPT * 2, PROMPT[::-1])


def told(event: StepEvent) -> Any:
    """A result but for the time it took."""
    return replace(event, device_ns=0) if isinstance(event, DoneEvent) else event


def test_the_answer_is_that_of_the_steps_that_are_waited_for_and_of_the_host(
    engine: Engine, waiting: Engine, ops: OpTable, llama: Path
) -> None:
    plain = Engine(ops)
    plain.load("m", source_of(llama), LoadSettings(), lambda *_: None)
    requests = [ask(prompt, str(at), max_tokens=20) for at, prompt in enumerate(OTHERS)]
    coming = {2 * at: [request] for at, request in enumerate(requests)}
    found = [run(each, coming) for each in (engine, waiting, plain)]
    choices = [[last(events[request.id]).choices for request in requests] for events in found]
    assert choices[0] == choices[1] == choices[2]
    assert left_behind(engine) == []


def test_the_next_step_is_asked_for_before_the_last_one_is_known(engine: Engine, capture: Lagging) -> None:
    engine.submit(ask(PROMPT, max_tokens=6))
    unknown = []
    while runner(engine).busy:
        engine.step()
        unknown.append(sum(not sent.waits for sent in capture.sent))
    assert unknown == [1, 1, 1, 1, 1, 1, 0]
    assert [sent.waits for sent in capture.sent] == [1] * 6, "as many steps as tokens: no length is overshot"


def test_an_answer_that_ends_by_its_words_has_one_step_too_many(engine: Engine, capture: Lagging) -> None:
    tokens = last(run(engine, {0: [ask(PROMPT, max_tokens=8)]})["r"]).choices[0].tokens
    before = len(capture.sent)
    ended = last(run(engine, {0: [ask(PROMPT, max_tokens=8, stop_token_ids=[tokens[3]])]})["r"]).choices[0]
    assert (ended.reason, list(ended.tokens)) == ("stop", list(tokens[:4]))
    assert len(capture.sent) - before == 5 and left_behind(engine) == []


def test_a_prefix_that_is_being_computed_is_not_computed_twice(engine: Engine, waiting: Engine) -> None:
    for each in (engine, waiting):
        events = run(each, {0: [ask([*PROMPT, *PROMPT, 5 + at], f"r{at}", max_tokens=4) for at in range(3)]})
        assert sorted(last(found).cached_tokens for found in events.values()) == [0, 48, 48]


def test_drawn_answers_depend_on_the_seed_alone(engine: Engine, waiting: Engine) -> None:
    requests = [ask(prompt, str(at), max_tokens=15, temperature=1.3, seed=at, n=2) for at, prompt in enumerate(OTHERS)]
    together = run(engine, {3 * at: [request] for at, request in enumerate(requests)})
    for request in requests:
        alone = last(run(waiting, {0: [request]})[request.id])
        assert last(together[request.id]).choices == alone.choices
        assert len({tuple(choice.tokens) for choice in alone.choices}) == 2


@pytest.mark.parametrize(
    "asked",
    [
        {"logprobs": 2},
        {"grammar": {"regex": "[a-z ]{12}"}},
        *(
            pytest.param(asked, marks=pytest.mark.slow)
            for asked in (
                {"prompt_logprobs": 1}, {"logit_bias": {5: 4.0}}, {"repetition_penalty": 1.5},
                {"speculative": {"method": "ngram", "tokens": 3}},
                {"n": 2, "best_of": 3, "temperature": 1.0, "seed": 1},
            )
        ),
    ],
)  # fmt: skip
def test_what_the_host_has_to_choose_it_chooses_beside_others(
    engine: Engine, ops: OpTable, llama: Path, asked: dict[str, Any]
) -> None:
    plain = Engine(ops)
    plain.load("m", source_of(llama), LoadSettings(), lambda *_: None)
    guided = ask(PROMPT, "guided", max_tokens=12, **asked)
    others = [ask(prompt, str(at), max_tokens=14) for at, prompt in enumerate(OTHERS)]
    found = run(engine, {0: others[:2], 3: [guided], 5: others[2:]})
    alone = last(run(plain, {0: [guided]})["guided"])
    for mine, own in zip(last(found["guided"]).choices, alone.choices, strict=True):
        assert (mine.tokens, mine.text, mine.reason) == (own.tokens, own.text, own.reason)
    for request in others:
        assert last(found[request.id]).choices == done(plain, request).choices
    assert left_behind(engine) == []


def test_logits_that_are_not_finite_fail_their_request_alone(engine: Engine) -> None:
    good, bad = ask(PROMPT[:5], "good", max_tokens=12), ask(PROMPT, "bad", max_tokens=12)
    wanted = last(run(engine, {0: [good]})["good"]).choices
    states = runner(engine)._lane._states
    sample, calls = states._sample, []

    def spoilt(logits: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
        calls.append(len(logits))
        logits = logits.clone()
        if len(calls) == 5:
            logits[1] = torch.nan
        return sample(logits, *rest)

    states._sample = spoilt
    events = run(engine, {0: [good, bad]})
    failed = events["bad"][-1]
    assert isinstance(failed, FailedEvent) and isinstance(failed.error, DeviceFault)
    assert last(events["good"]).choices == wanted and left_behind(engine) == []


def test_a_deadline_drops_what_is_under_way(engine: Engine) -> None:
    late = replace(ask(PROMPT, "late", max_tokens=80), deadline=time.monotonic() + 600)
    engine.submit(late)
    engine.submit(ask(PROMPT[:9], "other", max_tokens=12))
    for _ in range(4):
        engine.step()
    row = runner(engine)._jobs["late"].choices[0].row
    assert row.ahead == 1
    row.deadline = time.monotonic() - 1
    events = [event for _ in range(20) for event in engine.step()]
    errors = [event.error for event in events if isinstance(event, FailedEvent)]
    assert len(errors) == 1 and isinstance(errors[0], TimedOut)
    assert [event.new_tokens for event in events if isinstance(event, DoneEvent)] == [12]
    assert left_behind(engine) == []


def of_adapters(engine: Engine, adapters: Sequence[Path]) -> list[list[int]]:
    """The tokens of requests to a base and its adapters that come one after the other."""
    for at, folder in enumerate(adapters):
        engine.load(f"a{at}", source_of(folder), LoadSettings(), lambda *_: None, "m")
    requests = [ask(PROMPT, f"r{at}", model, max_tokens=12) for at, model in enumerate(("m", "a0", "a1", "a0", "m"))]
    events = run(engine, {at: [request] for at, request in enumerate(requests)})
    assert left_behind(engine) == []
    return [list(last(events[request.id]).choices[0].tokens) for request in requests]


def test_adapters_take_part_in_steps_of_the_lane(ops: OpTable, llama: Path, tmp_path: Path) -> None:
    """Also on ops in C++, which take no slots and put off what they are asked: their steps run as they come."""
    adapters = [save_adapter(base_of(llama), tmp_path / f"lora{at}", at, r=4 * at + 4) for at in range(2)]
    native = OpTable()
    register_reference(native)
    register_native(native)
    served = native.choose("lora_shrink", {"device": "cpu", "dtype": "float32"}).implementation.name
    found = []
    for table, ahead in ((ops, True), (ops, False), (native, True)):
        engine = lane_engine(llama, table, capture := Lagging(), ahead)
        found.append(of_adapters(engine, adapters))
        captured = any("with adapters" in made for made in capture.made)
        refused = [reason for reason in runner(engine).reasons if "decode steps with adapters not captured" in reason]
        assert captured is not bool(refused)
        assert bool(refused) is (table is native and served == "native")
    assert found[0] == found[1] == found[2]
    assert found[0][0] == found[0][4] and found[0][1] == found[0][3]
    assert len({tuple(tokens) for tokens in found[0]}) == 3


def test_rows_that_lose_their_pages_lose_no_token(engine: Engine, ops: OpTable, llama: Path) -> None:
    requests = [
        ask([*prompt[:20], at], f"r{at}", max_tokens=40, temperature=0.5 * (at % 2), seed=at)
        for at, prompt in enumerate(OTHERS)
    ]
    tight = lane_engine(llama, ops, Lagging(), pages=9)
    scheduler, lost = runner(tight)._scheduler, []
    planned = scheduler.plan

    def noted(now: float) -> StepPlan:
        plan = planned(now)
        lost.extend((row.id, row.ahead) for row in plan.preempted)
        return plan

    scheduler.plan = noted  # type: ignore[method-assign]
    found = run(tight, {at: [request] for at, request in enumerate(requests)})
    for request in requests:
        assert last(found[request.id]).choices == last(run(engine, {0: [request]})[request.id]).choices
    assert any(ahead for _, ahead in lost), "a row whose token is under way is among those that lose their pages"
    assert left_behind(tight) == []


def test_a_step_without_memory_fails_the_largest_request_and_loses_nothing_of_the_others(engine: Engine) -> None:
    small, large = ask(PROMPT[:5], "small", max_tokens=12), ask(PROMPT, "large", max_tokens=12)
    wanted = last(run(engine, {0: [small]})["small"]).choices
    lane = runner(engine)._lane
    launch = lane.launch

    def short(steps: Sequence[RowStep], settings: Mapping[Row, Settings]) -> Launched:
        if any(step.count == len(PROMPT) for step in steps):
            raise MemoryError
        return launch(steps, settings)

    lane.launch = short  # type: ignore[method-assign]
    events = run(engine, {0: [small], 4: [large]})
    failed = events["large"][-1]
    assert isinstance(failed, FailedEvent) and isinstance(failed.error, NoDeviceMemory)
    assert last(events["small"]).choices == wanted and left_behind(engine) == []


class Placed(Processor):
    """A processor whose steps are captured."""

    def __init__(self) -> None:
        self.captures: list[Lagging] = []

    def capture(self, what: str) -> Capture:
        self.captures.append(Lagging())
        return self.captures[-1]


def test_a_place_that_captures_has_its_models_in_lanes(ops: OpTable, llama: Path) -> None:
    place, stages = Placed(), []
    engine = Engine(ops, place=place)
    loaded = engine.load("m", source_of(llama), LoadSettings(), lambda *told: stages.append(told))
    assert loaded.rung == "P" and loaded.rung_reasons == ()
    assert isinstance(runner(engine), LaneRunner) and len(place.captures[0].made) == 4
    assert sum("capture" in told for told in stages) == 4, "signs of life while steps are made"
    pool = runner(engine)._model.pool
    assert runner(engine)._blocks.pages == pool.pages - 1
    first = done(engine, ask(PROMPT, max_tokens=9)).choices
    plain = Engine(ops)
    plain.load("m", source_of(llama), LoadSettings(), lambda *_: None)
    assert done(plain, ask(PROMPT, max_tokens=9)).choices == first
    engine.sleep("m")
    engine.wake("m", lambda *_: None)
    assert done(engine, ask(PROMPT, max_tokens=9)).choices == first and len(place.captures) == 1
    engine.unload("m")


class Wide(Placed):
    """Steps of three rows at most."""

    rows = 3


def test_a_place_says_how_many_rows_a_step_has(ops: OpTable, llama: Path) -> None:
    place = Wide()
    engine = Engine(ops, place=place)
    assert engine.load("m", source_of(llama), LoadSettings(), lambda *_: None).slots == 3
    assert len(place.captures[0].made) == 3, "of 1, 2 and 3 rows"
    events = run(engine, {0: [ask(PROMPT, str(number), max_tokens=4) for number in range(5)]})
    first, *others = [last(events[str(number)]).choices for number in range(5)]
    assert all(other == first for other in others)
    engine.unload("m")


def test_steps_are_captured_when_the_draft_model_is_there(
    ops: OpTable, llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drafters: list[object] = []
    prepare = LaneRunner.prepare

    def watched(self: LaneRunner, alive: Callable[[], None]) -> None:
        drafters.append(self.drafter)
        prepare(self, alive)

    monkeypatch.setattr(LaneRunner, "prepare", watched)
    source = source_of(llama)
    engine = Engine(ops, place=Wide())
    engine.load("m", replace(source, draft=source), LoadSettings(draft="other"), lambda *_: None)
    assert [drafter is not None for drafter in drafters] == [True]
    engine.unload("m")


@pytest.mark.slow
def test_on_a_gpu_that_is_simulated_the_answers_are_those_of_the_processor(ops: OpTable, llama: Path) -> None:
    class OnGpu(SimulatedPlace):
        def capture(self, what: str) -> Capture:
            return Eager(DEVICE, (1, 2, 4))

    requests = [ask(PROMPT[at:], str(at), max_tokens=6, temperature=0.8 * (at % 2), seed=at) for at in range(3)]
    found = []
    for place in (Placed(), OnGpu()):
        with SimulatedCuda() if isinstance(place, OnGpu) else contextlib.nullcontext():
            engine = Engine(ops, 32, place=place)
            engine.load("m", source_of(llama), LoadSettings(), lambda *_: None)
            events = run(engine, {at: [request] for at, request in enumerate(requests)})
            found.append([last(events[request.id]).choices for request in requests])
            assert left_behind(engine) == []
    assert found[0] == found[1]


# ---- anything, in any order


@dataclass(frozen=True)
class Script:
    """Requests with the steps that they come before, the steps before which some are cancelled, and the room."""

    coming: Mapping[int, Sequence[Request]]
    cancels: Mapping[int, Sequence[str]] = field(default_factory=dict)
    rows: int = 4
    pages: int = 0


PREFIXES = (PROMPT, PROMPT[:9], PROMPT * 2, (5, 6, 7))
STOPS: Sequence[Sequence[str]] = ((), ("e",), ("o ", "th"))


@st.composite
def requests(draw: st.DrawFn, id: str) -> Request:
    prompt = [*draw(st.sampled_from(PREFIXES)), *draw(st.lists(st.integers(3, 300), max_size=20))]
    drawn = draw(st.booleans())
    options: dict[str, Any] = {"max_tokens": draw(st.integers(1, 24)), "stop": draw(st.sampled_from(STOPS))}
    if draw(st.booleans()):
        options["stop_token_ids"] = draw(st.lists(st.integers(3, 319), min_size=40, max_size=80, unique=True))
    if drawn:
        options |= {"temperature": draw(st.sampled_from((0.3, 1.0, 2.5))), "seed": draw(st.integers(0, 5))}
        options |= {"n": draw(st.integers(1, 3)), "top_k": draw(st.sampled_from((0, 20)))}
    elif draw(st.integers(0, 3)) == 0:
        options["logprobs"] = 1
    asked = ask(prompt, id, stream=draw(st.booleans()), **options)
    return replace(asked, work_class=draw(st.sampled_from(sorted(CLASSES))))


@st.composite
def scripts(draw: st.DrawFn) -> Script:
    coming: dict[int, list[Request]] = {}
    cancels: dict[int, list[str]] = {}
    for number in range(draw(st.integers(1, 5))):
        at = draw(st.integers(0, 25))
        coming.setdefault(at, []).append(draw(requests(f"r{number}")))
        if draw(st.integers(0, 3)) == 0:
            cancels.setdefault(at + draw(st.integers(1, 15)), []).append(f"r{number}")
    return Script(coming, cancels, draw(st.sampled_from((2, 8))), draw(st.sampled_from((0, 9))))


@pytest.fixture(scope="module")
def engines(ops: OpTable, llama: Path) -> dict[tuple[int, int, bool], Engine]:
    """Engines by rows, pages, and whether they are ahead."""
    return {
        (rows, pages, ahead): lane_engine(llama, ops, Lagging(), ahead, rows, pages)
        for rows in (2, 8) for pages in (0, 9) for ahead in (True, False)
    }  # fmt: skip


@given(scripts())
def test_whatever_comes_the_answers_are_the_same(engines: dict[tuple[int, int, bool], Engine], script: Script) -> None:
    ahead, waits = (engines[script.rows, script.pages, each] for each in (True, False))
    for engine in (ahead, waits):
        runner(engine)._blocks.forget_salt(b"")
    cancelled = {id for ids in script.cancels.values() for id in ids}
    found = run(ahead, script.coming, script.cancels)
    wanted = run(waits, script.coming)
    for id, events in found.items():
        mine, own = last(events), last(wanted[id])
        for choice, whole in zip(mine.choices, own.choices, strict=True):
            if choice.reason == "cancelled":
                assert id in cancelled and list(choice.tokens) == list(whole.tokens[: len(choice.tokens)])
            else:
                assert (choice.tokens, choice.text, choice.reason) == (whole.tokens, whole.text, whole.reason)
            streamed = [each for each in events if isinstance(each, ChunkEvent) and each.index == choice.index]
            if streamed:
                assert [token for each in streamed for token in each.tokens] == list(choice.tokens)
                assert "".join(each.text for each in streamed) == choice.text
    assert left_behind(ahead) == [] and left_behind(waits) == []


TURN = st.tuples(st.integers(0, 2), st.integers(1, 12), st.booleans(), st.integers(0, 14))


@given(st.lists(TURN, min_size=2, max_size=3))
def test_conversations_go_on_alike(
    engines: dict[tuple[int, int, bool], Engine], turns: Sequence[tuple[int, int, bool, int]]
) -> None:
    """Turns of three conversations, each maybe continued in a copy, beside another request."""
    found = []
    for ahead in (True, False):
        engine = engines[8, 9, ahead]
        runner(engine)._blocks.forget_salt(b"")
        opened = [f"c{at}" for at in range(3)]
        for id in opened:
            engine.open_context(id, "m", "", 0)
        answers = []
        for number, (at, count, forks, company) in enumerate(turns):
            if forks:
                opened.append(f"f{number}")
                engine.open_context(opened[-1], "m", opened[at], 0)
                opened[at], opened[-1] = opened[-1], opened[at]
            stops = range(3 + number % 5, 319, 5)  # most end by these, when the next step was asked for already
            turn = ask(
                [3 + number, 40 + at, 50], f"r{number}", context=opened[at], max_tokens=count, stop_token_ids=[*stops]
            )
            other = ask([60 + number, 61], f"o{number}", max_tokens=1 + company)
            events = run(engine, {0: [turn, other]} if company == 0 else {0: [turn], company: [other]})
            answers += [told(events[turn.id][-1]), last(events[other.id]).choices]
        for id in opened:
            engine.drop_context(id)
        assert left_behind(engine) == []
        found.append(answers)
    assert found[0] == found[1]
