"""One generation: where it ends, what it streams, and what a conversation holds afterwards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import transformers
from tiny_models import CONTEXT, PROMPT, ask, build, choice, done, finish, greedy, silent, source_of

from llmos.drivers.contract import ChunkEvent, DoneEvent, FailedEvent, LoadSettings
from llmos.drivers.engine.engine import Engine
from llmos.drivers.ops.table import OpTable
from llmos.syscalls.errors import BadArgument, DeviceFault, TooLarge

HELLO = [{"role": "user", "content": "hello"}]


@pytest.fixture(scope="module")
def answer(llama: Path) -> list[int]:
    """What `generate` answers to PROMPT."""
    return greedy(transformers.AutoModelForCausalLM.from_pretrained(llama), PROMPT)[0]


def state_tokens(engine: Engine, context: str = "c") -> list[int]:
    return engine._conversations[context].tokens


def damage(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the model answer with what is no number."""
    module = engine._entries["m"].awake().bundle.module
    forward = module.forward

    def broken(**given: Any) -> Any:
        answer = forward(**given)
        answer.logits = answer.logits * float("nan")
        return answer

    monkeypatch.setattr(module, "forward", broken)


# ---- where it ends


def test_it_ends_at_max_tokens(engine: Engine, answer: list[int]) -> None:
    ended = choice(engine, ask(PROMPT, max_tokens=5))
    assert (ended.tokens, ended.reason) == (answer[:5], "length")


def test_no_tokens_are_an_answer_too(engine: Engine) -> None:
    result = done(engine, ask(PROMPT, max_tokens=0))
    assert (result.choices[0].tokens, result.choices[0].reason, result.prompt_tokens) == ([], "length", len(PROMPT))


def test_it_ends_at_the_models_end_token_unless_told_not_to(ops: OpTable, tmp_path: Path) -> None:
    folder = build(tmp_path / "ends")
    tokens = choice_of(ops, folder, max_tokens=12).tokens
    module = transformers.AutoModelForCausalLM.from_pretrained(folder)
    module.generation_config.eos_token_id = [319, tokens[4]]
    module.save_pretrained(folder)
    first = tokens.index(tokens[4])
    ended = choice_of(ops, folder, max_tokens=12)
    assert (ended.tokens, ended.reason) == (tokens[: first + 1], "stop")
    assert choice_of(ops, folder, max_tokens=12, ignore_eos=True).tokens == tokens


def choice_of(ops: OpTable, folder: Path, **params: Any) -> Any:
    engine = Engine(ops)
    engine.load("m", source_of(folder), LoadSettings(), silent)
    return choice(engine, ask(PROMPT, **params))


def test_it_ends_at_a_stop_token_whose_text_is_left_out(engine: Engine, answer: list[int]) -> None:
    whole = choice(engine, ask(PROMPT, max_tokens=12))
    first = answer.index(answer[6])
    ended = choice(engine, ask(PROMPT, max_tokens=12, stop_token_ids=[answer[6]]))
    assert (ended.tokens, ended.reason) == (answer[: first + 1], "stop")
    assert whole.text.startswith(ended.text)


def test_it_ends_at_a_stop_string_across_tokens(engine: Engine) -> None:
    whole = choice(engine, ask(PROMPT, max_tokens=30))
    stop = whole.text[5:9]
    *chunks, last = finish(engine, ask(PROMPT, max_tokens=30, stop=["never", stop], stream=True))["r"]
    assert isinstance(last, DoneEvent)
    ended = last.choices[0]
    assert (ended.text, ended.reason) == (whole.text[: whole.text.index(stop)], "stop")
    assert "".join(chunk.text for chunk in chunks) == ended.text  # type: ignore[union-attr]
    assert whole.tokens[: len(ended.tokens)] == ended.tokens
    assert [token for chunk in chunks for token in chunk.tokens] == ended.tokens  # type: ignore[union-attr]


def test_text_that_only_began_a_stop_string_is_given_back(engine: Engine) -> None:
    whole = choice(engine, ask(PROMPT, max_tokens=10))
    assert choice(engine, ask(PROMPT, max_tokens=10, stop=[whole.text[-2:] + "never"])).text == whole.text


def test_it_ends_when_the_context_is_full(engine: Engine) -> None:
    prompt = [7, 9] * (CONTEXT // 2 - 2)
    ended = choice(engine, ask(prompt, max_tokens=50))
    assert (len(ended.tokens), ended.reason) == (4, "length")
    assert choice(engine, ask([7] * CONTEXT, max_tokens=50)).tokens == []
    with pytest.raises(TooLarge) as error:
        engine.submit(ask([7] * (CONTEXT + 1)))
    assert (error.value.limit, error.value.got) == (CONTEXT, CONTEXT + 1)


def test_options_are_checked_before_anything_runs(engine: Engine) -> None:
    with pytest.raises(BadArgument, match="max_tokens"):
        engine.submit(ask(PROMPT, max_tokens=-1))
    with pytest.raises(BadArgument, match="n=4"):
        engine.submit(ask(PROMPT, n=4))
    with pytest.raises(BadArgument, match="stop"):
        engine.submit(ask(PROMPT, stop=[""]))
    assert engine.step() == []


# ---- what it streams


def test_without_streaming_only_the_result_comes(engine: Engine) -> None:
    assert [type(event) for event in finish(engine, ask(PROMPT, max_tokens=5))["r"]] == [DoneEvent]


def test_tokens_without_text_come_with_the_next_that_have_some(engine: Engine) -> None:
    vocabulary = engine._entries["m"].awake().vocabulary
    smile = [token for byte in "😀".encode() for token in range(320) if vocabulary.bytes_of(token) == bytes([byte])]
    bias = dict.fromkeys(smile[:1], 100.0)
    *chunks, last = finish(engine, ask(PROMPT, max_tokens=3, logit_bias=bias, stream=True, logprobs=0))["r"]
    assert isinstance(last, DoneEvent) and isinstance(chunks[-1], ChunkEvent)
    assert last.choices[0].tokens == smile[:1] * 3
    assert [token for chunk in chunks for token in chunk.tokens] == smile[:1] * 3  # type: ignore[union-attr]
    assert last.choices[0].text == "\ufffd\ufffd"  # two that will never be whole; the third might have been
    assert len(chunks[-1].logprobs or ()) == len(chunks[-1].tokens)


def test_a_chats_answer_is_a_text_of_its_own(engine: Engine) -> None:
    result = done(engine, ask(HELLO, max_tokens=6))
    vocabulary = engine._entries["m"].awake().vocabulary
    fresh = vocabulary.detokenizer()
    whole = "".join(fresh.feed(token) for token in result.choices[0].tokens)
    assert result.task == "text-generation" and result.choices[0].text == whole


# ---- conversations


def test_a_conversation_continues_where_it_was(engine: Engine, answer: list[int]) -> None:
    engine.open_context("c", "m", "", 0)
    first = done(engine, ask(PROMPT[:10], context="c", max_tokens=3))
    after = [*PROMPT[:10], *first.choices[0].tokens]
    assert state_tokens(engine) == after
    second = done(engine, ask(PROMPT[10:], context="c", max_tokens=5))
    assert (second.prompt_tokens, second.cached_tokens) == (len(after) + 14, len(after) - 1)
    assert second.choices[0].tokens == choice(engine, ask([*after, *PROMPT[10:]], max_tokens=5)).tokens


def test_text_in_a_conversation_begins_only_once(engine: Engine) -> None:
    engine.open_context("c", "m", "", 0)
    done(engine, ask("the dog", context="c", max_tokens=0))
    done(engine, ask(" jumps", context="c", max_tokens=0))
    tokenizer = engine._entries["m"].awake().bundle.tokenizer
    parts = [tokenizer("the dog")["input_ids"], tokenizer(" jumps", add_special_tokens=False)["input_ids"]]
    assert state_tokens(engine) == parts[0] + parts[1]


def test_a_chat_in_a_conversation_is_the_whole_chat(engine: Engine) -> None:
    """What the cache already holds of it is reused; where the chat was changed, the conversation follows."""
    engine.open_context("c", "m", "", 0)
    first = done(engine, ask(HELLO, context="c", max_tokens=4))
    longer = [*HELLO, {"role": "assistant", "content": "yes"}, {"role": "user", "content": "and"}]
    second = done(engine, ask(longer, context="c", max_tokens=4))
    assert second.cached_tokens == first.prompt_tokens
    alone = done(engine, ask(longer, max_tokens=4))
    assert second.choices == alone.choices
    assert state_tokens(engine)[: alone.prompt_tokens][-1] == state_tokens(engine)[alone.prompt_tokens - 1]
    again = done(engine, ask(longer, context="c", max_tokens=4))
    assert (again.cached_tokens, again.choices) == (again.prompt_tokens - 1, alone.choices)


def test_a_cancelled_answer_stays_in_its_conversation(engine: Engine) -> None:
    engine.open_context("c", "m", "", 0)
    engine.submit(ask(PROMPT, context="c", max_tokens=50))
    for _ in range(3):
        engine.step()
    engine.cancel("r")
    (event,) = engine.step()
    assert isinstance(event, DoneEvent)
    assert state_tokens(engine) == [*PROMPT, *event.choices[0].tokens]


@pytest.mark.parametrize("prompt", [PROMPT[3:], HELLO])
@pytest.mark.parametrize("how", ["fail", "cancel before the first token", "cancel before the first step"])
def test_what_came_to_nothing_leaves_the_conversation_as_it_was(
    ops: OpTable, llama: Path, monkeypatch: pytest.MonkeyPatch, prompt: Any, how: str, rung: str
) -> None:
    engine = Engine(ops, prefill_tokens=4)
    engine.load("m", source_of(llama), LoadSettings(rung=rung), silent)
    engine.open_context("c", "m", "", 0)
    done(engine, ask([*PROMPT[:9]], context="c", max_tokens=2))
    before = state_tokens(engine)
    engine.submit(ask(prompt, context="c"))
    if how == "fail":
        damage(engine, monkeypatch)
        while not (events := engine.step()):
            pass
        monkeypatch.undo()
        assert isinstance(events[0], FailedEvent) and isinstance(events[0].error, DeviceFault)
    else:
        if "token" in how:
            engine.step()
        engine.cancel("r")
        (event,) = engine.step()
        assert isinstance(event, DoneEvent) and event.choices[0].reason == "cancelled"
    assert state_tokens(engine) == before
    expected = choice(engine, ask([*before, 5], max_tokens=4))
    assert choice(engine, ask([5], context="c", max_tokens=4)) == expected


def test_an_answer_follows_its_grammar(engine: Engine) -> None:
    made = choice(engine, ask("the", max_tokens=40, grammar={"regex": "(fox|dog)( jumps)?!"}))
    assert (made.text, made.reason) in {(f"{one}{two}!", "grammar") for one in ("fox", "dog") for two in ("", " jumps")}
    try:
        last = finish(engine, ask("the", grammar={"regex": "("}))["r"][-1]
        error = last.error if isinstance(last, FailedEvent) else None
    except BadArgument as raised:
        error = raised
    assert isinstance(error, BadArgument) and "regex" in str(error)
    assert engine.step() == []


def test_several_answers_are_made_whatever_the_rung(engine: Engine) -> None:
    asked: dict[str, Any] = {"max_tokens": 5, "temperature": 1.5, "seed": 4}
    result = done(engine, ask(PROMPT, n=3, **asked))
    assert [c.index for c in result.choices] == [0, 1, 2] and result.new_tokens == 15
    assert len({tuple(c.tokens) for c in result.choices}) > 1
    assert result.choices[0] == choice(engine, ask(PROMPT, **asked))
    engine.open_context("c", "m", "", 0)
    done(engine, ask(PROMPT, n=2, context="c", **asked))
    assert state_tokens(engine) == [*PROMPT, *result.choices[0].tokens]
