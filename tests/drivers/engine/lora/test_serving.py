"""Requests of several adapters and of their base, served together: added, replaced and dropped meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lora_folders import TARGETS, Make, base_of, config_of, expected, save_adapter, tensors_of, without_weights
from slow_cases import slow_but
from tiny_models import PROMPT, ask, build, choice, done, finish, silent, source_of

from llmos.drivers.contract import ChunkEvent, DoneEvent, LoadSettings, Request, StepEvent
from llmos.drivers.engine.engine import Engine
from llmos.drivers.engine.lora import layout
from llmos.drivers.ops.cpu.ops import register_native
from llmos.drivers.ops.reference import register_reference
from llmos.drivers.ops.table import OpTable
from llmos.syscalls.errors import BadModel, BadState, Exists, NotFound, NotSupported

PROMPTS = (PROMPT, PROMPT[3:17], PROMPT[:21], PROMPT[5:], PROMPT[::-1], PROMPT[2:20:2])


def put(engine: Engine, folder: Path, id: str = "a") -> Any:
    return engine.put_adapter(id, "m", tensors_of(folder), config_of(folder))


def answer(engine: Engine, model: str = "m", prompt: Any = PROMPT, **options: Any) -> list[int]:
    return list(choice(engine, ask(prompt, model=model, max_tokens=12, **options)).tokens)


def answers(engine: Engine, *requests: Request) -> dict[str, list[int]]:
    found = {}
    for id, events in finish(engine, *requests).items():
        last = events[-1]
        assert isinstance(last, DoneEvent), last
        found[id] = list(last.choices[0].tokens)
    return found


@pytest.fixture(params=slow_but(["llama", "qwen3_next"], sorted(TARGETS)))
def family(request: pytest.FixtureRequest, ops: OpTable, tmp_path: Path) -> tuple[Engine, Any, list[Path]]:
    """An engine with a model `m`, its base for peft, and three adapters of it."""
    name = request.param
    folder = build(tmp_path / name, name)
    base, options = base_of(folder), TARGETS[name]
    made = [
        save_adapter(base, tmp_path / f"a{seed}", seed, 0.1, **{**options, "r": rank})
        for seed, rank in ((0, 4), (1, 4), (2, 9))
    ]
    engine = Engine(ops)
    engine.load("m", source_of(folder), LoadSettings(), silent)
    for at, adapter in enumerate(made):
        engine.load(f"a{at}", source_of(adapter), LoadSettings(), silent, "m")
    return engine, base, made


@pytest.mark.slow
def test_the_same_on_ops_that_are_repeated(tmp_path: Path) -> None:
    """Steps of base and adapters in turn and together; an adapter is replaced by another between steps."""
    table = OpTable()
    register_reference(table)
    register_native(table)
    folder = build(tmp_path / "base", "llama")
    base = base_of(folder)
    made = [save_adapter(base, tmp_path / f"a{seed}", seed, 0.1, **{**TARGETS["llama"], "r": 4}) for seed in range(3)]
    engine = Engine(table)
    engine.load("m", source_of(folder), LoadSettings(), silent)
    for adapters in (made[:2], made[1:]):
        models = {"m": None, **{f"a{at}": adapter for at, adapter in enumerate(adapters)}}
        for name, adapter in models.items():
            if adapter is not None:
                engine.load(name, source_of(adapter), LoadSettings(), silent, "m")
        requests = [
            ask(prompt, id=f"{name}-{at}", model=name, max_tokens=12)
            for at, prompt in enumerate(PROMPTS)
            for name in models
        ]
        found = answers(engine, *requests)
        for name, adapter in models.items():
            for at, prompt in enumerate(PROMPTS):
                assert found[f"{name}-{at}"] == expected(base, adapter, prompt, 12), (name, at)
            assert answer(engine, name) == expected(base, adapter, PROMPT, 12), f"{name} alone"
        for name in models:
            if name != "m":
                engine.unload(name)


def test_three_adapters_and_the_base_in_one_batch_answer_as_each_merged_alone(
    family: tuple[Engine, Any, list[Path]],
) -> None:
    engine, base, made = family
    models = {"m": None, **{f"a{at}": folder for at, folder in enumerate(made)}}
    wanted = {
        f"{model}/{at}": expected(base, folder, prompt)
        for model, folder in models.items()
        for at, prompt in enumerate(PROMPTS[:3])
    }
    assert len({tuple(found) for found in wanted.values()}) == len(wanted)
    asked = [
        ask(PROMPTS[at], f"{model}/{at}", model, max_tokens=12) for at in range(3) for model in ("a1", "m", "a2", "a0")
    ]
    assert answers(engine, *asked) == wanted
    for model in models:
        assert answer(engine, model) == wanted[f"{model}/0"]


AskAll = Callable[[], tuple[dict[str, list[int]], dict[str, list[int]]]]


@pytest.fixture
def ask_all(engine: Engine, llama: Path, make: Make) -> AskAll:
    """What two adapters answer in one batch with the base, and what they should. No prompt is asked twice."""
    folders = {"one": make("one", 1), "two": make("two", 2)}
    for id, folder in folders.items():
        engine.load(id, source_of(folder), LoadSettings(), silent, "m")
    base, prompts = base_of(llama), iter(PROMPTS)

    def run() -> tuple[dict[str, list[int]], dict[str, list[int]]]:
        prompt = next(prompts)
        wanted = {id: expected(base, folders.get(id), prompt) for id in ("m", "one", "two")}
        return answers(engine, *(ask(prompt, id, id, max_tokens=12) for id in ("two", "m", "one"))), wanted

    return run


@pytest.mark.parametrize("rung", ["P"], indirect=True)
def test_planted_errors_in_the_ranges_are_caught(ask_all: AskAll, monkeypatch: pytest.MonkeyPatch) -> None:
    found, wanted = ask_all()
    assert found == wanted
    right = layout.grouped

    def early(*given: Any) -> Any:
        """By one token, which the base's row before them leaves room for."""
        total, groups = right(*given)
        return total, tuple(group._replace(start=group.start - 1, end=group.end - 1) for group in groups)

    def swapped(*given: Any) -> Any:
        total, groups = right(*given)
        return total, tuple(group._replace(slot=1 - group.slot) for group in groups)

    def forgotten(*given: Any) -> Any:
        total, groups = right(*given)
        return total, groups[:-1]

    for wrong in (early, swapped, forgotten):
        with monkeypatch.context() as planted:
            planted.setattr(layout, "grouped", wrong)
            found, wanted = ask_all()
        assert found != wanted, wrong.__name__


def step_until(engine: Engine, wanted: Callable[[list[StepEvent]], bool]) -> list[StepEvent]:
    events: list[StepEvent] = []
    for _ in range(400):
        events.extend(engine.step())
        if wanted(events):
            return events
    raise AssertionError(f"it never came: {events}")


def streaming(events: list[StepEvent]) -> bool:
    return any(isinstance(event, ChunkEvent) for event in events)


def result(events: list[StepEvent], id: str) -> list[int]:
    last = next(event for event in events if isinstance(event, DoneEvent) and event.request == id)
    return list(last.choices[0].tokens)


def ended(*ids: str) -> Callable[[list[StepEvent]], bool]:
    return lambda events: set(ids) <= {event.request for event in events if isinstance(event, DoneEvent)}


def test_requests_end_with_the_version_that_they_began_with(engine: Engine, llama: Path, make: Make) -> None:
    base, old, new = base_of(llama), make("old", 1), make("new", 2)
    put(engine, old)
    held = {row.owner: row.allocator for row in engine.memory() if row.what == "weights"}
    engine.submit(ask(PROMPT, "before", "a", max_tokens=24, stream=True))
    events = step_until(engine, streaming)
    put(engine, new)
    between = {row.owner: row.allocator for row in engine.memory() if row.what == "weights"}
    assert (between["a"], between["m"]) == (held["a"], held["m"] + held["a"])  # the old one, until it is not used
    engine.submit(ask(PROMPT, "after", "a", max_tokens=24))
    events += step_until(engine, ended("before", "after"))
    assert result(events, "before") == expected(base, old, PROMPT, 24)
    assert result(events, "after") == expected(base, new, PROMPT, 24) != result(events, "before")
    for version in (old, new):  # the place that became free is the next version's
        put(engine, version)
        assert {row.owner: row.allocator for row in engine.memory() if row.what == "weights"} in (held, between)


def test_no_page_of_an_old_version_is_used_again(engine: Engine, llama: Path, make: Make) -> None:
    """The same long prompt, which the prefix cache would find."""
    base, prompt = base_of(llama), (*PROMPT, *PROMPT, *PROMPT[:3])
    for seed in (1, 2, 1):
        folder = make(f"version{seed}", seed)
        put(engine, folder)
        first = finish(engine, ask(prompt, model="a", max_tokens=12))["r"][-1]
        assert isinstance(first, DoneEvent)
        assert (list(first.choices[0].tokens), first.cached_tokens) == (expected(base, folder, prompt), 0)
    assert answer(engine, "m", prompt) == expected(base, None, prompt)


def test_a_version_that_does_not_fit_changes_nothing(engine: Engine, llama: Path, make: Make) -> None:
    folder = make("old", 1)
    put(engine, folder)
    engine.submit(ask(PROMPT, "under way", "a", max_tokens=12))
    broken = {key: tensor[:, :-1] if "lora_A" in key else tensor for key, tensor in tensors_of(folder).items()}
    with pytest.raises(BadModel, match="lora_A of"):
        engine.put_adapter("a", "m", broken, config_of(folder))
    with pytest.raises(NotSupported, match="IA3"):
        engine.put_adapter("a", "m", tensors_of(folder), {**config_of(folder), "peft_type": "IA3"})
    wanted = expected(base_of(llama), folder)
    assert result(step_until(engine, ended("under way")), "under way") == wanted == answer(engine, "a")


def test_an_id_that_is_taken_by_something_else_is_not_replaced(engine: Engine, make: Make) -> None:
    folder = make()
    with pytest.raises(Exists, match="m is loaded already"):
        put(engine, folder, "m")
    with pytest.raises(NotFound):
        engine.put_adapter("a", "nobody", tensors_of(folder), config_of(folder))


def test_an_adapter_of_files_may_be_replaced_from_memory(engine: Engine, llama: Path, make: Make) -> None:
    base, old, new = base_of(llama), make("old", 1), make("new", 2, r=8)
    engine.load("a", source_of(old), LoadSettings(), silent, "m")
    assert answer(engine, "a") == expected(base, old)
    described = put(engine, new)
    assert answer(engine, "a") == expected(base, new)
    rows = {row.owner: row for row in engine.memory() if row.what == "weights"}
    assert rows["a"].predicted == rows["a"].allocator == described.rows[0].allocator


def test_others_run_on_while_one_is_dropped(engine: Engine, llama: Path, make: Make) -> None:
    base, one, two = base_of(llama), make("one", 1), make("two", 2)
    put(engine, one, "a")
    put(engine, two, "b")
    for id in ("m", "a", "b"):
        engine.submit(ask(PROMPT, id, id, max_tokens=24))
    events = [*engine.step(), *engine.step(), *engine.step()]
    engine.unload("a")
    put(engine, make("three", 3), "c")  # takes the slot that is free
    events += step_until(engine, ended("m", "a", "b"))
    cancelled = next(event for event in events if isinstance(event, DoneEvent) and event.request == "a")
    assert cancelled.choices[0].reason == "cancelled"
    assert result(events, "m") == expected(base, None, PROMPT, 24)
    assert result(events, "b") == expected(base, two, PROMPT, 24)
    with pytest.raises(NotFound):
        engine.submit(ask(PROMPT, model="a"))


def turn(engine: Engine, text: tuple[int, ...], id: str = "c", model: str = "a") -> list[int]:
    return list(choice(engine, ask(text, model=model, context=id, max_tokens=6)).tokens)


def test_a_conversation_goes_on_with_the_new_version(engine: Engine, llama: Path, make: Make) -> None:
    """What was computed with the old one is computed again, in the conversation and in its forks."""
    base, old, new = base_of(llama), make("old", 1), make("new", 2)
    put(engine, old)
    engine.open_context("c", "a", "", 0)
    said = [*PROMPT, *turn(engine, PROMPT)]
    assert said[len(PROMPT) :] == expected(base, old, PROMPT, 6)
    engine.open_context("fork", "a", "c", 0)
    put(engine, new)
    wanted = expected(base, new, (*said, 9, 8), 6)
    assert turn(engine, (9, 8)) == wanted
    assert turn(engine, (9, 8), "fork") == wanted
    said += [9, 8, *wanted]
    assert turn(engine, (5,)) == expected(base, new, (*said, 5), 6)


def test_a_conversation_replaced_in_the_middle_of_an_answer_is_computed_again(
    engine: Engine, llama: Path, make: Make
) -> None:
    base, old, new = base_of(llama), make("old", 1), make("new", 2)
    put(engine, old)
    engine.open_context("c", "a", "", 0)
    engine.submit(ask(PROMPT, "first", "a", context="c", max_tokens=12, stream=True))
    events = step_until(engine, streaming)
    put(engine, new)
    events += step_until(engine, ended("first"))
    said = [*PROMPT, *result(events, "first")]
    assert said[len(PROMPT) :] == expected(base, old)
    assert turn(engine, (9,)) == expected(base, new, (*said, 9), 6)


def test_adapters_from_memory_sleep_and_wake_with_their_base(engine: Engine, llama: Path, make: Make) -> None:
    base, one, two = base_of(llama), make("one", 1), make("two", 2)
    put(engine, one, "a")
    engine.load("b", source_of(two), LoadSettings(), silent, "m")
    held = {row.owner: row.allocator for row in engine.memory() if row.what == "weights"}
    for _ in range(2):
        engine.sleep("m")
        asleep = {row.owner: row.allocator for row in engine.memory() if row.what == "weights"}
        assert asleep == {"m": 0, "a": held["a"], "b": 0}  # tensors have no file to come back from
        with pytest.raises(BadState):
            put(engine, one, "a")
        engine.wake("m", silent)
        assert {row.owner: row.allocator for row in engine.memory() if row.what == "weights"} == held
        assert answer(engine, "a") == expected(base, one)
        assert answer(engine, "b") == expected(base, two)


def test_a_conversation_with_an_adapter_goes_on_after_sleep(engine: Engine, make: Make) -> None:
    engine.load("b", source_of(make("two", 2)), LoadSettings(), silent, "m")
    engine.open_context("c", "b", "", 0)
    done(engine, ask(PROMPTS[0], "first", "b", context="c", max_tokens=3))
    engine.open_context("d", "b", "c", 0)
    wanted = done(engine, ask([5], "awake", "b", context="d", max_tokens=4))
    assert engine.sleep("m").contexts == ["c", "d"]
    engine.wake("m", silent)
    found = done(engine, ask([5], "after", "b", context="c", max_tokens=4))
    assert (found.cached_tokens, found.choices) == (wanted.cached_tokens, wanted.choices)
    assert found.cached_tokens > 0


def test_an_adapter_from_memory_outlives_a_wake_that_fails(engine: Engine, llama: Path, make: Make) -> None:
    one, two = make("one", 1), make("two", 2)
    put(engine, one, "a")
    engine.load("b", source_of(two), LoadSettings(), silent, "m")
    engine.sleep("m")
    with without_weights(two), pytest.raises(BadModel):
        engine.wake("m", silent)
    engine.wake("m", silent)
    assert answer(engine, "a") == expected(base_of(llama), one)


def test_more_adapters_than_a_bank_holds_go_together(engine: Engine, llama: Path, make: Make) -> None:
    base, count = base_of(llama), layout.BANK_SLOTS + 2
    folders = [make(f"a{seed}", seed, spread=0.3) for seed in range(count)]
    for at, folder in enumerate(folders):
        put(engine, folder, f"a{at}")
    asked = [ask(PROMPTS[at % 3], f"a{at}", f"a{at}", max_tokens=12) for at in reversed(range(count))]
    wanted = {f"a{at}": expected(base, folder, PROMPTS[at % 3]) for at, folder in enumerate(folders)}
    assert answers(engine, *asked) == wanted
