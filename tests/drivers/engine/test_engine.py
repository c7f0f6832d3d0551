"""The runner: models, conversations and requests, and what goes wrong with each."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import PROMPT, ask, choice, done, finish, silent, source_of

from llmos.drivers.contract import DoneEvent, EmbedSettings, FailedEvent, LoadSettings, Overrun
from llmos.drivers.engine.engine import Engine
from llmos.drivers.engine.answers import Answer
from llmos.drivers.ops.table import OpTable
from llmos.syscalls.errors import BadArgument, BadModel, BadState, Exists, LlmosError, NoDeviceMemory, NotFound


def load(engine: Engine, folder: Path, id: str = "n", rung: str = "") -> Any:
    return engine.load(id, source_of(folder), LoadSettings(rung=rung), silent)


def test_a_loaded_model_describes_itself(engine: Engine, llama: Path, rung: str) -> None:
    loaded = load(engine, llama, rung=rung)
    assert (loaded.architecture, loaded.context, loaded.chat, loaded.rung) == ("LlamaForCausalLM", 128, True, rung)
    assert list(loaded.tasks) == ["text-generation", "feature-extraction", "tokenize", "detokenize"]
    assert loaded.parameters == 4 * loaded.parameters // 4 > 100_000
    assert [reason[:2] for reason in loaded.rung_reasons] == ([] if rung == "P" else ["P:"])


def test_a_name_is_taken_once_and_a_failed_load_keeps_nothing(engine: Engine, llama: Path, tmp_path: Path) -> None:
    with pytest.raises(Exists):
        load(engine, llama, "m")
    with pytest.raises(BadModel):
        load(engine, tmp_path)
    with pytest.raises(NotFound):
        engine.unload("n")


def test_models_take_turns(engine: Engine, llama: Path, rung: str) -> None:
    load(engine, llama, rung=rung)
    for id, model in (("a", "m"), ("b", "n")):
        engine.submit(ask(PROMPT, id, model, max_tokens=3, stream=True))
    heard = [{event.request for event in engine.step()} for _ in range(6)]
    assert heard[0] <= {"a"} and heard[1] <= {"b"}, "who had nothing yet goes first"
    assert all(len(one) <= 1 for one in heard) and set().union(*heard) == {"a", "b"}
    assert engine.step() == []


def test_requests_of_one_model_share_its_steps_on_pages(ops: OpTable, llama: Path) -> None:
    engine = Engine(ops)
    load(engine, llama, rung="P")
    for at, id in enumerate("abc"):
        engine.submit(ask(PROMPT[at:], id, "n", max_tokens=3))
    done = [{event.request for event in engine.step()} for _ in range(3)]
    assert done == [set(), set(), {"a", "b", "c"}] and engine.step() == []


def test_a_queued_request_is_cancelled_before_its_turn(engine: Engine) -> None:
    for id in ("a", "b"):
        engine.submit(ask(PROMPT, id, max_tokens=2))
    thread = threading.Thread(target=engine.cancel, args=("b",))
    thread.start()
    thread.join()
    events = engine.step()
    assert [(event.request, type(event)) for event in events] == [("b", DoneEvent)]
    assert events[0].choices[0].tokens == []  # type: ignore[union-attr]
    assert [event.request for event in [*engine.step(), *engine.step()]] == ["a"]


def test_unloading_ends_requests_and_conversations(engine: Engine) -> None:
    engine.open_context("c", "m", "", 0)
    done(engine, ask(PROMPT, "before", context="c", max_tokens=2))
    for id, context in (("a", "c"), ("b", "")):
        engine.submit(ask(PROMPT, id, context=context))
    engine.step()
    held = sum(row.allocator for row in engine.memory())
    assert engine.unload("m") == held
    events = engine.step()
    assert {(event.request, event.choices[0].reason) for event in events} == {  # type: ignore[union-attr]
        ("a", "cancelled"), ("b", "cancelled"),
    }  # fmt: skip
    assert engine.step() == [] and engine.memory() == []
    with pytest.raises(NotFound):
        engine.drop_context("c")


def test_a_model_with_requests_does_not_sleep(engine: Engine) -> None:
    engine.submit(ask(PROMPT))
    with pytest.raises(BadState) as error:
        engine.sleep("m")
    assert error.value.state == "running"


def test_what_conversations_computed_survives_sleep(engine: Engine) -> None:
    engine.open_context("c", "m", "", 0)
    done(engine, ask(PROMPT, context="c", max_tokens=2))
    engine.open_context("d", "m", "c", 0)
    engine.open_context("e", "m", "c", 0)
    expected = done(engine, ask([5], context="d", max_tokens=4))
    assert expected.cached_tokens == len(PROMPT) + 1
    asleep = engine.sleep("m")
    assert list(asleep.contexts) == ["c", "d", "e"]
    kept = [row for row in engine.memory() if row.allocator]
    assert [(row.what, row.owner, row.device) for row in kept] == [("kv", "m", "host")]
    assert kept == [row for row in asleep.rows if row.device == "host"]
    engine.wake("m", silent)
    assert not [row for row in engine.memory() if row.device]
    for id in ("c", "e"):
        after = done(engine, ask([5], context=id, max_tokens=4))
        assert (after.cached_tokens, after.choices[0]) == (expected.cached_tokens, expected.choices[0])


def test_without_room_conversations_survive_sleep_as_their_tokens(engine: Engine) -> None:
    engine.open_context("c", "m", "", 0)
    done(engine, ask(PROMPT, context="c", max_tokens=2))
    engine.open_context("d", "m", "c", 0)
    expected = choice(engine, ask([5], context="d", max_tokens=4))
    assert engine.sleep("m", host_bytes=0).contexts == ["c", "d"]
    assert sum(row.allocator for row in engine.memory()) == 0
    engine.wake("m", silent)
    after = done(engine, ask([5], context="c", max_tokens=4))
    assert (after.cached_tokens, after.choices[0]) == (0, expected)


def test_the_conversation_used_last_is_kept_first(engine: Engine) -> None:
    for id in "abc":
        engine.open_context(id, "m", "", 0)
        done(engine, ask([*id.encode(), *PROMPT], context=id, max_tokens=2))
    done(engine, ask([5], context="a", max_tokens=2))
    one = sum(row.allocator for row in engine.sleep("m").rows if row.device) // 3
    engine.wake("m", silent)
    engine.sleep("m", host_bytes=one + one // 2)
    engine.wake("m", silent)
    cached = {id: done(engine, ask([5], context=id, max_tokens=1)).cached_tokens > 0 for id in "abc"}
    assert cached == {"a": True, "b": False, "c": False}


def test_a_conversation_that_ends_while_its_model_sleeps_frees_what_was_kept(engine: Engine) -> None:
    for id in "ab":
        engine.open_context(id, "m", "", 0)
        done(engine, ask([*id.encode(), *PROMPT], context=id, max_tokens=2))
    held = sum(row.allocator for row in engine.sleep("m").rows)
    assert engine.drop_context("a") == sum(row.allocator for row in engine.memory()) == held // 2
    engine.wake("m", silent)
    assert done(engine, ask([5], context="b", max_tokens=1)).cached_tokens > 0


def test_a_copy_of_a_conversation_goes_its_own_way(engine: Engine, rung: str) -> None:
    engine.open_context("c", "m", "", 100)
    done(engine, ask(PROMPT, context="c", max_tokens=2))
    opened = engine.open_context("d", "m", "c", 0)
    assert (opened.tokens, opened.max_tokens) == (len(PROMPT) + 2, 128)
    assert (opened.bytes > 0) == (rung == "G")  # pages belong to the model
    one = done(engine, ask([5, 6], context="c", max_tokens=6))
    two = done(engine, ask([7], context="d", max_tokens=6))
    assert one.cached_tokens == two.cached_tokens == len(PROMPT) + 1
    before = engine._conversations["d"].tokens[: opened.tokens]
    assert two.choices == done(engine, ask([*before, 7], max_tokens=6)).choices


def test_the_limit_of_a_conversation_holds(engine: Engine) -> None:
    engine.open_context("c", "m", "", len(PROMPT) + 4)
    ended = choice(engine, ask(PROMPT, context="c", max_tokens=50))
    assert (len(ended.tokens), ended.reason) == (4, "length")
    with pytest.raises(LlmosError, match="room for 28"):
        engine.submit(ask([1, 2], context="c"))
    with pytest.raises(BadArgument, match="28"):
        engine.open_context("d", "m", "c", 20)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("c", "m", "", 0), Exists), (("d", "nobody", "", 0), NotFound), (("d", "m", "nobody", 0), NotFound),
        (("d", "m", "", 129), BadArgument), (("d", "m", "", -1), BadArgument), (("d", "n", "c", 0), BadState),
    ],
)  # fmt: skip
def test_conversations_that_cannot_be_opened(
    engine: Engine, llama: Path, arguments: tuple[str, str, str, int], error: type[LlmosError]
) -> None:
    load(engine, llama)
    engine.open_context("c", "m", "", 0)
    with pytest.raises(error):
        engine.open_context(*arguments)
    assert engine.open_context("e", "m", "", 0).tokens == 0


def test_a_conversation_has_one_request_at_a_time(engine: Engine) -> None:
    engine.open_context("c", "m", "", 0)
    engine.submit(ask(PROMPT, "a", context="c"))
    for use in (lambda: engine.submit(ask(PROMPT, "b", context="c")), lambda: engine.open_context("d", "m", "c", 0)):
        with pytest.raises(BadState) as error:
            use()
        assert error.value.state == "busy"
    with pytest.raises(NotFound, match="nobody"):
        engine.submit(ask(PROMPT, "b", context="nobody"))


def test_dropping_a_conversation_ends_its_request(engine: Engine, rung: str) -> None:
    engine.open_context("c", "m", "", 0)
    engine.submit(ask(PROMPT, "a", context="c"))
    engine.step()
    assert (engine.drop_context("c") > 0) == (rung == "G")
    (event,) = engine.step()
    assert isinstance(event, DoneEvent) and event.choices[0].reason == "cancelled"


def test_tokens_are_made_and_read_without_the_model(engine: Engine, llama: Path) -> None:
    made = done(engine, ask("the dog", task="tokenize"))
    tokens = made.choices[0].tokens
    assert made.device_ns == 0 and made.prompt_tokens == len(tokens) > 1
    assert choice(engine, ask(tokens, task="detokenize")).text == "<s>the dog"


def test_a_task_must_be_one_of_the_models(engine: Engine) -> None:
    with pytest.raises(LlmosError, match="text-generation, feature-extraction"):
        engine.submit(ask(PROMPT, task="summarization"))
    engine.open_context("c", "m", "", 0)
    with pytest.raises(BadArgument, match="takes no conversation"):
        engine.submit(ask(PROMPT, context="c", embed=EmbedSettings()))


def test_a_lack_of_memory_fails_the_request_alone(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*given: Any) -> Any:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 byte")

    monkeypatch.setattr(Answer, "take", full)
    (event,) = finish(engine, ask(PROMPT))["r"]
    assert isinstance(event, FailedEvent) and isinstance(event.error, NoDeviceMemory)
    monkeypatch.undo()
    assert choice(engine, ask(PROMPT, max_tokens=1)).tokens


def test_only_the_request_that_needs_too_much_is_given_up(engine: Engine, rung: str) -> None:
    """An allocation that really fails, in a step of several requests, whatever the order."""
    alone = [choice(engine, ask([*PROMPT[at:], 7], max_tokens=6)) for at in range(3)]
    module = engine._entries["m"].awake().bundle.module

    def greedy_layer(_module: Any, given: Any) -> None:
        if 319 in given[0]:
            torch.empty(1 << 60, dtype=torch.uint8)

    hook = module.get_input_embeddings().register_forward_pre_hook(greedy_layer)
    requests = [ask([*PROMPT[at:], 7], f"{at}", max_tokens=6) for at in range(3)]
    assert not any(319 in tokens for tokens in (PROMPT, *(each.tokens for each in alone)))
    events = finish(engine, requests[0], ask([319, 7], "bad", max_tokens=6), *requests[1:])
    failed = events.pop("bad")[-1]
    assert isinstance(failed, FailedEvent) and isinstance(failed.error, NoDeviceMemory)
    assert failed.error.needed == 1 << 60
    planned = next(row.predicted for row in engine.memory() if row.what == "workspace")
    assert failed.overrun == Overrun(planned, planned + (1 << 60))
    assert [events[f"{at}"][-1].choices[0] for at in range(3)] == alone  # type: ignore[union-attr]
    hook.remove()
    assert choice(engine, ask([319, 7], max_tokens=6)).tokens


def test_a_step_that_is_too_large_as_a_whole_goes_in_parts(ops: OpTable, llama: Path) -> None:
    engine = Engine(ops)
    load(engine, llama, rung="P")
    alone = [choice(engine, ask(PROMPT[at:], model="n", max_tokens=5)) for at in range(4)]
    sizes: list[int] = []

    def narrow(_module: Any, given: Any) -> None:
        sizes.append(given[0].shape[1])
        if given[0].shape[1] > len(PROMPT):
            raise MemoryError

    engine._entries["n"].awake().bundle.module.get_input_embeddings().register_forward_pre_hook(narrow)
    engine._entries["n"].awake().runners[0]._blocks.forget_all()  # type: ignore[attr-defined]
    events = finish(engine, *(ask(PROMPT[at:], f"{at}", "n", max_tokens=5) for at in range(4)))
    assert max(sizes) > len(PROMPT), "nothing was too large"
    assert [events[f"{at}"][-1].choices[0] for at in range(4)] == alone  # type: ignore[union-attr]


def test_a_bug_is_not_hidden(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*given: Any) -> Any:
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(Answer, "take", broken)
    engine.submit(ask(PROMPT))
    with pytest.raises(RuntimeError, match="shapes"):
        engine.step()


def test_predictions_are_of_the_next_step(engine: Engine) -> None:
    assert engine.step_seconds() == 0.0
    done(engine, ask(PROMPT, max_tokens=3))
    engine.submit(ask(PROMPT * 4, max_tokens=3))
    long = engine.step_seconds()
    engine.step()
    assert 0.0 < engine.step_seconds() != long


def test_closing_drops_everything(engine: Engine) -> None:
    engine.open_context("c", "m", "", 0)
    engine.submit(ask(PROMPT, context="c"))
    engine.close()
    assert engine.step() == [] and engine.memory() == []
