"""What holds for every device that generates text: requests, sampling, streams, cancels, embeddings, tensors."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from llmos.drivers.contract import EmbedSettings, Prompt, SamplingParams, TensorView
from llmos.syscalls.errors import BadArgument, LlmosError, NotSupported, TooLarge

from .device_bench import DeviceBench, Outcome
from .verdicts import Absent, expect, expect_error, optional

REASONS = ("stop", "length", "cancelled", "grammar")
LONG = SamplingParams(max_tokens=200, ignore_eos=True)
WRONG_SAMPLING: tuple[Mapping[str, Any], ...] = (
    {"max_tokens": -1}, {"temperature": -1.0}, {"temperature": math.nan}, {"top_p": 0.0}, {"top_p": 1.5},
    {"min_p": 2.0}, {"n": 0},
)  # fmt: skip


def generates(bench: DeviceBench) -> None:
    """submit, step: an answer with tokens, a reason, and what it cost"""
    _needs_text(bench)
    done = bench.one(bench.request()).result()
    choice = done.choices[0] if done.choices else None
    expect(choice is not None and len(done.choices) == 1, f"one choice is wanted, {len(done.choices)} came")
    assert choice is not None
    expect(choice.reason in REASONS, f"reason is {choice.reason!r}; known are {', '.join(REASONS)}")
    expect(len(choice.tokens) <= 8, f"max_tokens is 8, {len(choice.tokens)} tokens came")
    expect(done.new_tokens == len(choice.tokens), f"new_tokens is {done.new_tokens} for {len(choice.tokens)} tokens")
    expect(done.prompt_tokens > 0, "prompt_tokens is 0")


def length(bench: DeviceBench) -> None:
    """max_tokens: exactly that many when the end token is ignored, none for 0"""
    _needs_text(bench)
    choice = bench.one(bench.request(sampling=SamplingParams(max_tokens=5, ignore_eos=True))).choice
    expect(len(choice.tokens) == 5, f"max_tokens=5 with ignore_eos gave {len(choice.tokens)} tokens")
    expect(choice.reason == "length", f"the reason is {choice.reason!r}, not length")
    none = bench.one(bench.request(sampling=SamplingParams(max_tokens=0))).choice
    expect(not none.tokens and not none.text, f"max_tokens=0 gave {none}")


def greedy(bench: DeviceBench) -> None:
    """temperature 0: the same answer twice"""
    _needs_text(bench)
    first, second = (bench.one(bench.request()).choice for _ in range(2))
    expect((first.text, first.tokens) == (second.text, second.tokens), f"{first.text!r}, then {second.text!r}")


def seeded(bench: DeviceBench) -> None:
    """seed: the same answer twice at temperature 1"""
    _needs_text(bench)
    sampling = SamplingParams(max_tokens=12, temperature=1.0, seed=7)
    first, second = (bench.one(bench.request(sampling=sampling)).choice for _ in range(2))
    expect(list(first.tokens) == list(second.tokens), f"seed 7 gave {first.text!r}, then {second.text!r}")


def streams(bench: DeviceBench) -> None:
    """stream: the pieces are the whole, and none come unasked"""
    _needs_text(bench)
    whole = bench.one(bench.request())
    expect(not whole.chunks, "chunks came for a request that does not stream")
    streamed = bench.one(bench.request(stream=True))
    choice = streamed.choice
    text = "".join(chunk.text for chunk in streamed.chunks if chunk.index == 0)
    tokens = [token for chunk in streamed.chunks if chunk.index == 0 for token in chunk.tokens]
    expect(text == choice.text, f"the chunks say {text!r}, the result {choice.text!r}")
    expect(tokens == list(choice.tokens), f"the chunks have tokens {tokens}, the result {list(choice.tokens)}")
    expect(choice.text == whole.choice.text, f"streamed {choice.text!r}, else {whole.choice.text!r}")
    for chunk in streamed.chunks:
        expect("�" not in chunk.text or "�" in choice.text, "a chunk ends inside a character")


def token_ids(bench: DeviceBench) -> None:
    """token ids: taken as they are"""
    _needs_text(bench)
    tokens = list(bench.one(bench.request(sampling=SamplingParams(max_tokens=5, ignore_eos=True))).choice.tokens)
    done = bench.one(bench.request(Prompt(ids=tokens))).result()
    expect(done.prompt_tokens == len(tokens), f"{len(tokens)} ids were counted as {done.prompt_tokens}")


def chats(bench: DeviceBench) -> None:
    """chat: messages, when the model has a template"""
    _needs_text(bench)
    prompt = Prompt(messages=[{"role": "user", "content": "Hello"}])
    if bench.load().chat:
        bench.one(bench.request(prompt)).result()
        return
    outcome = _attempt(bench, prompt)
    expect(outcome.error is not None, "the model has no chat template, yet messages were accepted")
    raise Absent("the model has no chat template")


def stops(bench: DeviceBench) -> None:
    """stop: the text ends before the stop string"""
    _needs_text(bench)
    text = bench.one(bench.request(sampling=SamplingParams(max_tokens=12))).choice.text
    if len(text) < 3:
        raise Absent(f"the model says only {text!r}")
    stop = text[2]
    sampling = SamplingParams(max_tokens=12, stop=[stop])
    streamed = bench.one(bench.request(stream=True, sampling=sampling))
    choice = streamed.choice
    expect(choice.text == text[: text.index(stop)], f"{text!r} with stop {stop!r} gave {choice.text!r}")
    expect(choice.reason == "stop", f"the reason is {choice.reason!r}, not stop")
    said = "".join(chunk.text for chunk in streamed.chunks)
    expect(said == choice.text, f"the stream said {said!r}")


def several(bench: DeviceBench) -> None:
    """n: that many choices, numbered"""
    _needs_text(bench)
    with optional("n=2"):
        done = bench.one(bench.request(sampling=SamplingParams(max_tokens=4, n=2))).result()
    numbers = [choice.index for choice in done.choices]
    expect(numbers == [0, 1], f"n=2 gave choices {numbers}")


def logprobs(bench: DeviceBench) -> None:
    """logprobs: one for each new token, none above 0"""
    _needs_text(bench)
    with optional("logprobs"):
        choice = bench.one(bench.request(sampling=SamplingParams(max_tokens=4, logprobs=2))).choice
    found = choice.logprobs or ()
    expect([entry.token for entry in found] == list(choice.tokens), f"logprobs are for {[e.token for e in found]}")
    expect(all(entry.logprob <= 1e-6 for entry in found), f"a logarithm above 0: {[e.logprob for e in found]}")


def wrong_sampling(bench: DeviceBench) -> None:
    """sampling: values without a meaning are refused by name"""
    _needs_text(bench)
    for wrong in WRONG_SAMPLING:
        (name, value), = wrong.items()
        request = bench.request(sampling=SamplingParams(**wrong))
        refused = partial(bench.device.submit, request)
        error = expect_error(f"{name}={value}", refused, BadArgument, NotSupported)
        expect(name in str(error) or getattr(error, "name", "") == name, f"{name}={value}: the error does not name it")
    bench.one(bench.request()).result()


def too_long(bench: DeviceBench) -> None:
    """a prompt longer than the context: TooLarge"""
    _needs_text(bench)
    ids = [1] * (bench.load().context + 1)
    outcome = _attempt(bench, Prompt(ids=ids))
    expect(isinstance(outcome.error, TooLarge), f"{len(ids)} tokens: expected TooLarge, got {outcome.error!r}")


def unknown_task(bench: DeviceBench) -> None:
    """an unknown task: NotSupported"""
    bench.load()
    request = bench.request(task="paint-a-picture")
    expect_error("task", lambda: bench.device.submit(request), NotSupported, BadArgument)


def together(bench: DeviceBench) -> None:
    """requests at the same time: each ends once, with its own answer"""
    _needs_text(bench)
    alone = [bench.one(bench.request(text)).choice.text for text in ("One two", "Three")]
    both = [outcome.choice.text for outcome in bench.run(bench.request("One two"), bench.request("Three"))]
    expect(both == alone, f"together they say {both}, alone {alone}")


def one_fails(bench: DeviceBench) -> None:
    """a refused request does not disturb the others"""
    _needs_text(bench)
    good = bench.request()
    alone = bench.one(replace(good, id=bench.new_id())).choice.text
    outcomes = {good.id: Outcome()}
    bench.device.submit(good)
    bad = bench.request(sampling=SamplingParams(max_tokens=-1))
    expect_error("max_tokens=-1", lambda: bench.device.submit(bad), LlmosError)
    while not outcomes[good.id].ended:
        bench.step(outcomes)
    expect(outcomes[good.id].choice.text == alone, "the other request's answer changed")


def cancels(bench: DeviceBench) -> None:
    """cancel: ends within two steps, from any thread, with what there is"""
    _needs_text(bench)
    bench.device.cancel("nobody")
    request = bench.request(stream=True, sampling=LONG)
    outcomes = {request.id: Outcome()}
    bench.device.submit(request)
    bench.step(outcomes)
    thread = threading.Thread(target=bench.device.cancel, args=[request.id])
    thread.start()
    thread.join()
    for _turn in range(2):
        if not outcomes[request.id].ended:
            bench.step(outcomes)
    expect(outcomes[request.id].ended, "two steps after its cancel the request still runs")
    choice = outcomes[request.id].choice
    expect(choice.reason == "cancelled", f"the reason is {choice.reason!r}, not cancelled")
    expect(not bench.device.step(), "something came after the end of a cancelled request")


def embeds(bench: DeviceBench) -> None:
    """embeddings: one row of unit length, the same each time"""
    if "feature-extraction" not in bench.load().tasks:
        raise Absent("the model has no feature-extraction")
    done = [bench.one(bench.request(task="feature-extraction", embed=EmbedSettings())).result() for _ in range(2)]
    rows = done[0].embeddings or ()
    expect(len(rows) == 1, f"one row is wanted, {len(rows)} came")
    norm = math.sqrt(sum(value * value for value in rows[0]))
    expect(abs(norm - 1) < 1e-3, f"the row has length {norm}")
    again = (done[1].embeddings or ([],))[0]
    expect([float(v) for v in rows[0]] == [float(v) for v in again], "the same text has another row the second time")
    wrong = bench.request(task="feature-extraction", embed=EmbedSettings(pooling="sideways"))
    outcome = _outcome(bench, lambda: bench.one(wrong))
    expect(isinstance(outcome.error, BadArgument | NotSupported), f"pooling 'sideways': got {outcome.error!r}")


def tensors(bench: DeviceBench) -> None:
    """tensors: accepted when the device says so"""
    bench.load()
    view = TensorView("uint8", (4,), memoryview(b"\1\2\3\4"))
    if not bench.facts.features.get("tensors"):
        raise Absent("facts().features has no tensors")
    outcome = _attempt(bench, Prompt(tensors={"x": view}))
    if isinstance(outcome.error, NotSupported):
        raise Absent(f"the model takes no tensors: {outcome.error.why}")
    expect(bool(outcome.result().tensors), "the result has no tensors")


def unknown_option(bench: DeviceBench) -> None:
    """options: one that the task does not know is refused, never ignored"""
    bench.load()
    request = replace(bench.request(), options={"no_such_option": 1})
    expect_error("the option no_such_option", lambda: bench.device.submit(request), BadArgument)


def _needs_text(bench: DeviceBench) -> None:
    if "text-generation" not in bench.load().tasks:
        raise Absent("the model has no text-generation")


def _attempt(bench: DeviceBench, prompt: Prompt) -> Outcome:
    return _outcome(bench, lambda: bench.one(bench.request(prompt)))


def _outcome(bench: DeviceBench, run: Callable[[], Outcome]) -> Outcome:
    """A request may be refused at submit or end with an error."""
    try:
        return run()
    except LlmosError as error:
        return Outcome(error=error)


INFERENCE_CHECKS: tuple[Callable[[DeviceBench], None], ...] = (
    generates, length, greedy, seeded, streams, token_ids, chats, stops, several, logprobs, wrong_sampling, too_long,
    unknown_task, together, one_fails, cancels, embeds, tensors, unknown_option,
)  # fmt: skip
