"""An answer under way: what of a step it takes, and what it asks to be guessed."""

from __future__ import annotations

from typing import Any

import torch
from tiny_models import PROMPT, ask

from llmos.drivers.engine.answers import Answer
from llmos.drivers.engine.detokenizer import Vocabulary
from llmos.drivers.engine.drafting import Guessed
from llmos.drivers.engine.jobs import DRAFTS, Choice, method_of
from llmos.drivers.engine.loader import Bundle
from llmos.drivers.engine.sampling.chooser import Chooser, Sampled
from llmos.drivers.engine.steps import Row


def choice(bundle: Bundle, room: int = 20, prompt: Any = PROMPT, **sampling: Any) -> Choice:
    request = ask(prompt, **sampling)
    answer = Answer(request, 0, bundle, Vocabulary(bundle.tokenizer), prompt, room)
    return Choice(Row("r/0", list(prompt)), answer, Chooser(request.sampling, prompt, 1))


def test_drafts_of_one_step_are_gone_in_the_next(bundle: Bundle) -> None:
    made = choice(bundle, speculative={"method": "draft"})
    made.propose(Guessed([7, 8, 9], [torch.zeros(3)] * 3))
    assert made.row.drafts == [7, 8, 9] and made.drawn_from is not None
    assert made.take([Sampled(7), Sampled(5)], [7, 8, 9]) == 1
    assert (made.row.drafts, made.drawn_from, made.accepted) == ([], None, 1)
    assert made.row.tokens[-2:] == [7, 5]


def test_nothing_is_taken_after_the_end(bundle: Bundle) -> None:
    made = choice(bundle, stop_token_ids=[8], speculative={"method": "draft"})
    assert made.take([Sampled(7), Sampled(8), Sampled(9)], [7, 8]) == 2
    assert list(made.answer.tokens) == [7, 8] and made.ask() is None and made.wanted == 0


def test_no_more_is_guessed_than_there_is_room_for(bundle: Bundle) -> None:
    asked = choice(bundle, room=4, speculative={"method": "draft", "tokens": 9}).ask()
    assert asked is not None and asked.wanted == 3
    default = choice(bundle, speculative={"method": "draft"}).ask()
    assert default is not None and default.wanted == DRAFTS
    assert choice(bundle, room=1, speculative={"method": "draft"}).ask() is None


def test_only_what_asks_for_a_draft_model_gets_one(bundle: Bundle) -> None:
    repeated = [1, 2, 3, 1, 2]
    for way in (None, {}, {"method": "ngram"}):
        made = choice(bundle, prompt=repeated, speculative=way)
        made.guess()
        assert made.ask() is None and bool(made.row.drafts) == (way is not None)
    assert method_of({}) == "ngram"
