"""Requests of the paged runner under way: their answers, each with the row that its tokens are in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from ..contract import DoneEvent, Request, TokenLogprob, Usage
from . import causal
from .answers import Answer
from .drafting import Ask, Guessed
from .runner import Conversation
from .sampling.chooser import Chooser, Sampled, rank
from .sampling.speculative import trim
from .speculation import Lookup
from .steps import Row

DRAFTS = 4
"""Tokens guessed ahead when the request does not say how many."""
NGRAM = "ngram"


class Choice:
    """One answer with the row that its tokens are in. `accepted` counts its guessed tokens that were right."""

    def __init__(self, row: Row, answer: Answer, chooser: Chooser) -> None:
        self.row = row
        self.answer = answer
        self.chooser = chooser
        self.accepted = 0
        self.on_device = False
        """Whether its tokens are chosen on the device, all of them."""
        self.drawn_from: Tensor | None = None
        """The distributions that the row's drafts were drawn from, if a draft model drew them."""
        asked = chooser.params.speculative
        self._guesses = 0 if asked is None else int(asked.get("tokens", DRAFTS))
        self._lookup = Lookup(row.tokens) if asked is not None and method_of(asked) == NGRAM else None

    def take(self, made: Sequence[Sampled], drafts: Sequence[int]) -> int:
        """The tokens that a step brought, up to the end of the answer; returns how many `drafts` were among them."""
        right = 0
        self.row.drafts, self.drawn_from = [], None
        for at, sampled in enumerate(made):
            if self.answer.reason:
                break
            right += at < len(drafts) and sampled.token == drafts[at]
            self.row.tokens.append(sampled.token)
            self.answer.take(sampled.token, sampled.logprob, sampled.finished)
        self.accepted += right
        return right

    @property
    def wanted(self) -> int:
        """How many tokens to guess now, at most."""
        left = self.answer.room - len(self.answer.tokens) - 1
        return 0 if self.answer.reason else max(0, min(self._guesses, left))

    def guess(self) -> None:
        """Look up what follows, for the next step to check."""
        if self._lookup is not None and self.wanted:
            self._lookup.extend(self.row.tokens[len(self._lookup) :])
            self.row.drafts = trim(self.chooser, self._lookup.propose(self.wanted))

    def ask(self) -> Ask | None:
        """What a draft model is to guess for the next step; None when there is nothing, or it is looked up."""
        if self._lookup is not None or not self.wanted:
            return None
        return Ask(self.row.id, self.row.tokens, self.chooser, self.wanted, self.row.salt)

    def propose(self, guessed: Guessed) -> None:
        """What the draft model guessed. Drawn guesses stay although the grammar may exclude some: to leave those out
        by what they are would change what the others are distributed like."""
        self.drawn_from = guessed.probabilities
        self.row.drafts = guessed.tokens if self.chooser.drawn else trim(self.chooser, guessed.tokens)


class Job:
    """A request under way. Its conversation gets the row of its answer when that has ended well."""

    def __init__(self, request: Request, prompt: Sequence[int], conversation: Conversation | None) -> None:
        self.request = request
        self.prompt = prompt
        self.conversation = conversation
        self.choices: list[Choice] = []
        self.prompt_logprobs: list[TokenLogprob] = []
        self.device_ns = 0
        self.computed = 0
        """Tokens that went through the model for it."""

    def usage(self, page_bytes: int) -> Usage:
        """What it took so far; its rows have pages of so many bytes."""
        pages = {page for choice in self.choices for page in choice.row.pages}
        return Usage(self.device_ns, self.computed, len(pages) * page_bytes)

    @property
    def ended(self) -> bool:
        return all(choice.answer.reason for choice in self.choices)

    def done(self) -> DoneEvent:
        """The result; of more answers than asked for, the best."""
        by_chooser = {id(choice.chooser): choice for choice in self.choices}
        best = [by_chooser[id(chooser)] for chooser in rank([choice.chooser for choice in self.choices])]
        asked = self.request.sampling.prompt_logprobs is not None
        return DoneEvent(
            self.request.id, causal.TASK, tuple(choice.answer.result(at) for at, choice in enumerate(best)),
            prompt_tokens=len(self.prompt), cached_tokens=self.choices[0].row.cached,
            new_tokens=sum(len(choice.answer.tokens) for choice in self.choices),
            accepted_tokens=sum(choice.accepted for choice in self.choices), device_ns=self.device_ns,
            prompt_logprobs=self.prompt_logprobs if asked else None,
        )  # fmt: skip


def method_of(speculative: Mapping[str, object]) -> object:
    """How to guess: the method asked for."""
    return speculative.get("method", NGRAM)
