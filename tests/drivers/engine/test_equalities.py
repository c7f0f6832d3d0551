"""The same request has the same answer, however it is computed. What other files show is not shown again here.

Chunked or whole prompts, alone or in any batch (float32): `test_paged_runner.py`. Adapters live or merged:
`lora/test_serving.py`. Guessing ahead by a draft model: `test_drafts.py`; by lookup: `test_paged_runner.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tiny_models import PROMPT, ask, build, byte_level, done, finish, silent, source_of

from llmos.drivers.contract import ChoiceResult, DoneEvent, LoadSettings, Request
from llmos.drivers.engine import place
from llmos.drivers.engine.engine import Engine
from llmos.drivers.engine.sampling.distribution import BLOCK
from llmos.drivers.engine.scheduler import StepScheduler
from llmos.drivers.ops.table import OpTable

PROMPTS = (PROMPT, PROMPT[:7], PROMPT[3:], PROMPT * 2, PROMPT[::-1], PROMPT[5:] * 2, PROMPT[:11], PROMPT[::2])
CLOSE = 0.0625
"""In bfloat16 two runs may choose apart where the best two tokens are no further apart than this, as natural
logarithms: four steps of a number with 8 bits at the size of these logits, which are below 4."""


def made(ops: OpTable, folder: Path, prefill_tokens: int = 512, **settings: Any) -> Engine:
    engine = Engine(ops, prefill_tokens)
    engine.load("m", source_of(folder), LoadSettings(**settings), silent)
    return engine


def answers(engine: Engine, requests: Sequence[Request]) -> dict[str, ChoiceResult]:
    """Of all requests at a time."""
    found = finish(engine, *requests)
    ended = {id: events[-1] for id, events in found.items()}
    return {id: event.choices[0] for id, event in ended.items() if isinstance(event, DoneEvent)}


def asked(**options: Any) -> list[Request]:
    return [ask(prompt, str(at), max_tokens=30, **options) for at, prompt in enumerate(PROMPTS)]


@pytest.mark.parametrize("temperature", [0.0, 1.3])
def test_with_and_without_the_prefix_cache(ops: OpTable, llama: Path, temperature: float) -> None:
    options: dict[str, Any] = {"max_tokens": 25, "temperature": temperature, "seed": 6}
    cached, plain = made(ops, llama), made(ops, llama, prefix_cache=False)
    for engine in (cached, plain):
        done(engine, ask(PROMPT * 3, **options))
    again = [done(engine, ask([*PROMPT, *PROMPT, *PROMPT, 9], **options)) for engine in (cached, plain)]
    assert again[0].choices == again[1].choices
    assert [result.cached_tokens for result in again] == [64, 0]
    together = [finish(plain, *(ask(PROMPT * 2, str(at), n=2, **options | {"temperature": 1.0}) for at in range(3)))]
    assert all(events[-1].cached_tokens == 0 for found in together for events in found.values())  # type: ignore[union-attr]


def test_whether_rows_are_preempted_or_not(ops: OpTable, llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = answers(made(ops, llama), asked(temperature=0.8, seed=2))
    preempted: list[str] = []
    plan = StepScheduler.plan

    def watched(self: StepScheduler, now: float) -> Any:
        found = plan(self, now)
        preempted.extend(row.id for row in found.preempted)
        return found

    monkeypatch.setattr(StepScheduler, "plan", watched)
    monkeypatch.setattr(place, "pool_pages", lambda _context: 8)
    scarce = answers(made(ops, llama), asked(temperature=0.8, seed=2))
    assert len(set(preempted)) >= 2, "the pool has room for all"
    assert scarce == whole


def test_a_fork_of_a_conversation_or_the_whole_prompt(ops: OpTable, llama: Path) -> None:
    engine = made(ops, llama)
    engine.open_context("parent", "m", "", 0)
    first = done(engine, ask(PROMPT, context="parent", max_tokens=10)).choices[0].tokens
    engine.open_context("child", "m", "parent", 0)
    done(engine, ask([1, 2, 3], context="parent", max_tokens=5))
    for tail in ([7, 8], [9]):
        engine.open_context(f"c{tail}", "m", "child", 0)
        forked = done(engine, ask(tail, context=f"c{tail}", max_tokens=20))
        assert forked.cached_tokens >= 33 and forked.prompt_tokens == 34 + len(tail)
        plain = done(made(ops, llama), ask([*PROMPT, *first, *tail], max_tokens=20))
        assert forked.choices == plain.choices and plain.cached_tokens == 0


@pytest.mark.parametrize("prefill_tokens", [6, 512])
def test_half_precision_in_any_batch_but_where_two_tokens_are_as_good(
    ops: OpTable, tmp_path: Path, prefill_tokens: int
) -> None:
    folder = build(tmp_path / "half", tokenizer=byte_level())
    engine = made(ops, folder, prefill_tokens, dtype="bfloat16", prefix_cache=False)
    alone = {request.id: done(engine, request).choices[0] for request in asked(logprobs=2)}
    together = answers(engine, asked(logprobs=2))
    same = 0
    for id, one in alone.items():
        other = together[id]
        pairs = enumerate(zip(one.tokens, other.tokens, strict=True))
        apart = next((at for at, (left, right) in pairs if left != right), None)
        same += apart is None
        if apart is not None:
            assert one.logprobs is not None
            best, second = (logprob for _, logprob, _ in one.logprobs[apart].top)
            assert best - second <= CLOSE, (id, apart)
    assert same >= len(alone) // 2


def test_a_prompt_in_parts_with_a_vocabulary_of_real_size(ops: OpTable, tmp_path: Path) -> None:
    """Steps within the prompt give no logits at all, and tokens of a large vocabulary are chosen by blocks."""
    folder = build(tmp_path / "wide", vocab_size=3 * BLOCK + 5)
    whole, parts = (answers(made(ops, folder, tokens), asked(ignore_eos=True)[:1]) for tokens in (512, 16))
    assert whole == parts and len(parts["0"].tokens) == 30
