"""Speculation changes how many tokens a step gives, and nothing else: the same tokens, or the same distribution."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from chi_square import follows
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from llmos.drivers.contract import SamplingParams
from llmos.drivers.engine.detokenizer import Vocabulary
from llmos.drivers.engine.sampling import speculative
from llmos.drivers.engine.sampling.chooser import Chooser, Sampled
from llmos.drivers.engine.sampling.philox import Stream
from llmos.drivers.engine.sampling.sample import sample
from llmos.drivers.engine.sampling.speculative import Guess, draft, trim, verify
from llmos.drivers.engine.speculation import Lookup
from llmos.syscalls.errors import BadArgument, DeviceFault

SIZE = 5
FIRST = 0
MODEL = torch.randn(SIZE, SIZE, generator=torch.Generator().manual_seed(1)) * 1.5
OTHER = torch.randn(SIZE, SIZE, generator=torch.Generator().manual_seed(2)) * 1.5
"""Two models: what follows a token depends on that token alone."""


class Words(Vocabulary):
    def __init__(self) -> None:
        pass

    def text_of(self, token: int) -> str:
        return f"<{token}>"


WORDS = Words()


def rows(count: int, seed: int = 0, **params: Any) -> list[Chooser]:
    return [Chooser(SamplingParams(**params), [FIRST], seed, choice) for choice in range(count)]


def plainly(choosers: Sequence[Chooser], length: int, model: Tensor = MODEL) -> list[list[int]]:
    """Answers without speculation."""
    made: list[list[int]] = [[FIRST] for _ in choosers]
    for _ in range(length):
        for each, sampled in zip(made, sample(choosers, model[[each[-1] for each in made]], WORDS), strict=True):
            each.append(sampled.token)
    return [each[1 : length + 1] for each in made]


def speculatively(
    choosers: Sequence[Chooser], length: int, depth: int, drafter: str, model: Tensor = MODEL
) -> tuple[list[list[int]], float]:
    """Answers with speculation, and the share of drafts that were accepted."""
    made: list[list[int]] = [[FIRST] for _ in choosers]
    accepted = drafted = 0
    while (shortest := min(map(len, made))) <= length:
        going = [at for at, each in enumerate(made) if len(each) <= length]
        chosen, ends = [choosers[at] for at in going], [made[at] for at in going]
        drafts: list[list[int]] = [[] for _ in going]
        steps: list[Tensor] = []
        for ahead in range(depth):
            last = [(end + each)[-1] for end, each in zip(ends, drafts, strict=True)]
            if drafter == "model":
                tokens, probabilities = draft(chosen, OTHER[last], ahead, SIZE)
                steps.append(probabilities)
            else:
                tokens = [(end + each)[len(end + each) // 2] for end, each in zip(ends, drafts, strict=True)]
            for each, token in zip(drafts, tokens, strict=True):
                each.append(token)
        inputs = [token for end, each in zip(ends, drafts, strict=True) for token in (end[-1], *each)]
        known = torch.stack(steps, dim=1) if steps else None
        guesses = [
            Guess(
                chooser,
                range(at * (depth + 1), (at + 1) * (depth + 1)),
                drafts[at],
                None if known is None else known[at],
            )
            for at, chooser in enumerate(chosen)
        ]
        for at, (end, found) in enumerate(zip(ends, verify(guesses, model[inputs], WORDS), strict=True)):
            tokens = [sampled.token for sampled in found]
            assert 1 <= len(tokens) <= depth + 1 and tokens[:-1] == drafts[at][: len(tokens) - 1]
            accepted, drafted = accepted + len(tokens) - 1, drafted + depth
            end.extend(tokens)
        assert min(map(len, made)) > shortest
    return [each[1 : length + 1] for each in made], accepted / drafted


def chances(length: int, logits: Tensor) -> dict[tuple[int, ...], float]:
    """The probability of every answer."""
    table = torch.softmax(logits.double(), dim=-1).tolist()
    paths = itertools.product(range(SIZE), repeat=length)
    return {path: math.prod(table[one][two] for one, two in itertools.pairwise((FIRST, *path))) for path in paths}


@pytest.mark.parametrize("drafter", ["lookup", "model"])
@pytest.mark.parametrize("depth", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_answers_are_distributed_as_without_drafts(drafter: str, depth: int) -> None:
    length, count = 4, 6000
    made, accepted = speculatively(rows(count, temperature=1.0), length, depth, drafter)
    expected = chances(length, MODEL)
    assert follows(map(tuple, made), expected)
    assert 0.03 < accepted < 0.9
    assert not follows(map(tuple, made), chances(length, OTHER))


@pytest.mark.slow
def test_filters_and_temperature_are_kept() -> None:
    params = {"temperature": 0.7, "top_k": 3, "top_p": 0.9}
    length, count = 3, 4000
    kept = []
    for row in MODEL:
        weights = speculative.to_weights(
            speculative.scores_of(row[None], [0]), row.max()[None], [SamplingParams(**params)]
        )
        kept.append(weights[0, :SIZE].log())
    made, _ = speculatively(rows(count, **params), length, 2, "model")
    assert follows(map(tuple, made), chances(length, torch.stack(kept)))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("_accepts", lambda model, guessed, uniforms: torch.ones_like(uniforms, dtype=torch.bool)),
        ("_accepts", lambda model, guessed, uniforms: uniforms < model.double()),
        ("_residual", lambda model, guessed: model),
        ("_residual", lambda model, guessed: (guessed - model).clamp(min=1e-9)),
    ],
)
def test_a_wrong_rule_is_seen(monkeypatch: pytest.MonkeyPatch, name: str, wrong: Any) -> None:
    monkeypatch.setattr(speculative, name, wrong)
    made, _ = speculatively(rows(6000, temperature=1.0), 4, 3, "model")
    assert not follows(map(tuple, made), chances(4, MODEL))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("one", "other"),
    [(Stream.DRAFT, Stream.TOKEN), (Stream.ACCEPT, Stream.TOKEN), (Stream.ACCEPT, Stream.DRAFT)],
)
def test_a_number_used_for_two_things_is_seen(monkeypatch: pytest.MonkeyPatch, one: Stream, other: Stream) -> None:
    original = Chooser.uniform

    def mixed(self: Chooser, stream: Stream = Stream.TOKEN, ahead: int = 0) -> float:
        return original(self, other if stream == one else stream, ahead)

    model = torch.tensor([0.3, 0.05, 0.3, 0.05, 0.3]).log().repeat(SIZE, 1)
    right, _ = speculatively(rows(8000, temperature=1.0), 1, 1, "model", model)
    assert follows(map(tuple, right), chances(1, model))
    monkeypatch.setattr(Chooser, "uniform", mixed)
    made, _ = speculatively(rows(8000, temperature=1.0), 1, 1, "model", model)
    assert not follows(map(tuple, made), chances(1, model))


@pytest.mark.parametrize("drafter", ["lookup", "model"])
@pytest.mark.parametrize("params", [{}, {"repetition_penalty": 1.3}, {"logprobs": 2}, {"frequency_penalty": 0.9}])
def test_greedy_answers_are_the_same(drafter: str, params: dict[str, Any]) -> None:
    plain = plainly(rows(3, **params), 12)
    made, accepted = speculatively(rows(3, **params), 12, 3, drafter)
    assert made == plain
    assert drafter == "model" or accepted > 0


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 2**40),
    st.integers(1, 4),
    st.floats(0.3, 3.0),
    st.sampled_from([0.0, 0.7]),
    st.sampled_from([1, 1.4]),
)
def test_a_seed_gives_the_tokens_it_gives_without_a_lookup(
    seed: int, depth: int, temperature: float, presence: float, repetition: float
) -> None:
    params = {"temperature": temperature, "presence_penalty": presence, "repetition_penalty": repetition}
    plain = plainly(rows(4, seed, **params), 10)
    assert speculatively(rows(4, seed, **params), 10, depth, "lookup")[0] == plain


def test_drafts_of_a_draft_model_are_accepted_as_often_as_they_can_be() -> None:
    _, accepted = speculatively(rows(4000, temperature=1.0), 1, 1, "model")
    one, other = torch.softmax(MODEL[FIRST], -1), torch.softmax(OTHER[FIRST], -1)
    expected = float(torch.minimum(one, other).sum())
    assert abs(accepted - expected) < 4 * math.sqrt(expected * (1 - expected) / 4000)


def test_a_draft_model_that_is_the_model_is_always_right() -> None:
    chosen = rows(50, temperature=1.0)
    tokens, probabilities = draft(chosen, MODEL[[FIRST] * 50], 0, SIZE)
    logits = MODEL[[token for each in tokens for token in (FIRST, each)]]
    guesses = [
        Guess(each, (2 * at, 2 * at + 1), [tokens[at]], probabilities[at : at + 1]) for at, each in enumerate(chosen)
    ]
    assert all(len(found) == 2 for found in verify(guesses, logits, WORDS))


def test_one_step_serves_drawn_looked_up_and_plain_answers_together() -> None:
    kinds = ("model", "lookup", "none", "greedy")
    logits = torch.randn(12, SIZE, generator=torch.Generator().manual_seed(3))

    def guesses(only: Sequence[str]) -> list[Guess]:
        made = []
        for at, kind in enumerate(kinds):
            chooser = Chooser(SamplingParams(temperature=0.0 if kind == "greedy" else 2.0, logprobs=1), [], 11, at)
            probabilities = draft([chooser], OTHER[:1], 0, SIZE)[1].repeat(2, 1) if kind == "model" else None
            if kind in only:
                drafts = [] if kind == "none" else [1, 2]
                made.append(Guess(chooser, range(3 * at, 3 * at + len(drafts) + 1), drafts, probabilities))
        return made

    together = verify(guesses(kinds), logits, WORDS)
    assert together == [verify(guesses([kind]), logits, WORDS)[0] for kind in kinds]
    assert all(sampled.logprob is not None for found in together for sampled in found)
    assert len(together[kinds.index("none")]) == 1


def test_drafts_are_tokens_that_the_model_has() -> None:
    wide = torch.cat((OTHER[:2], torch.full((2, 7), 99.0)), dim=-1)
    tokens, probabilities = draft(rows(2, temperature=1.0), wide, 0, SIZE)
    assert max(tokens) < SIZE and probabilities.shape == (2, SIZE)
    narrow = draft(rows(2, temperature=1.0), OTHER[:2, :3], 0, SIZE)[1]
    assert narrow.shape == (2, SIZE) and not narrow[:, 3:].any()
    torch.testing.assert_close(narrow.sum(-1), torch.ones(2))
    assert draft(rows(1), OTHER[:1], 0, SIZE)[0] == [int(OTHER[0].argmax())]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("drawn", [False, True])
def test_a_row_that_is_not_finite_ends_its_answer_alone(temperature: float, drawn: bool) -> None:
    logits = torch.zeros(6, SIZE)
    logits[:, 2] = 90.0
    logits[4] = math.nan
    probabilities = torch.eye(SIZE)[[2, 2]] if drawn else None
    chosen = rows(2, temperature=temperature)
    guesses = [Guess(each, range(3 * at, 3 * at + 3), [2, 2], probabilities) for at, each in enumerate(chosen)]
    fine, failed = verify(guesses, logits, WORDS)
    assert [each.token for each in fine] == [2, 2, 2]
    assert failed[0].token == 2 and isinstance(failed[1].error, DeviceFault) and len(failed) == 2


def test_settings_that_leave_no_token_end_the_answer() -> None:
    chooser = rows(1, temperature=1.0, logit_bias=dict.fromkeys(range(SIZE), -math.inf))[0]
    (found,) = verify([Guess(chooser, (0, 1), [2], torch.eye(SIZE)[2:3])], torch.zeros(2, SIZE), WORDS)
    assert len(found) == 1 and isinstance(found[0].error, BadArgument)


class Twice:
    """A grammar of two tokens that are not 4."""

    def __init__(self, count: int = 0) -> None:
        self.count = count

    @property
    def finished(self) -> bool:
        return self.count == 2

    def allows(self, token: int) -> bool:
        return token != 4

    def mask(self, size: int) -> Tensor:
        return torch.arange(size) != 4

    def advance(self, token: int) -> None:
        self.count += 1

    def copy(self) -> Twice:
        return Twice(self.count)


@pytest.mark.parametrize("drawn", [False, True])
def test_a_finished_grammar_takes_no_more_drafts(drawn: bool) -> None:
    logits = torch.zeros(4, SIZE)
    logits[:, 1] = 99.0
    chooser = Chooser(SamplingParams(temperature=1.0), [], 0, 0, Twice())
    probabilities = torch.eye(SIZE)[[1, 1, 1]] if drawn else None
    (found,) = verify([Guess(chooser, range(4), [1, 1, 1], probabilities)], logits, WORDS)
    assert found == [Sampled(1), Sampled(1, finished=True)]


def test_nothing_is_chosen_after_an_end_token() -> None:
    logits = torch.zeros(4, SIZE)
    logits[:, 1] = 99.0
    logits[1, 3] = 199.0
    (chooser,) = rows(1, best_of=2, temperature=1.0)
    (found,) = verify([Guess(chooser, range(4), [1, 3, 1], ends={3})], logits, WORDS)
    assert [each.token for each in found] == [1, 3] and chooser.position == 2


def test_drafts_that_the_grammar_excludes_are_not_looked_at() -> None:
    chooser = Chooser(SamplingParams(), [], 0, 0, Twice())
    assert trim(chooser, [1, 4, 1]) == [1] and trim(chooser, [1, 1, 1]) == [1, 1] and trim(chooser, []) == []
    assert trim(rows(1)[0], [1, 4, 1]) == [1, 4, 1]
    assert isinstance(chooser.constraint, Twice) and chooser.constraint.count == 0


def test_a_lookup_speculates_on_text_that_repeats() -> None:
    cycle = torch.full((SIZE, SIZE), 0.0)
    for token in range(SIZE):
        cycle[token, (token + 1) % SIZE] = 99.0
    (chooser,) = rows(1)
    tokens, steps = [FIRST], 0
    lookup = Lookup(tokens)
    while len(tokens) < 40:
        drafts = lookup.propose(4)
        logits = cycle[[tokens[-1], *drafts]]
        (found,) = verify([Guess(chooser, range(len(drafts) + 1), drafts)], logits, WORDS)
        new = [sampled.token for sampled in found]
        tokens, steps = tokens + new, steps + 1
        lookup.extend(new)
    assert tokens == [at % SIZE for at in range(len(tokens))] and steps < 16
