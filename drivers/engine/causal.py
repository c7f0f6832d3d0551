"""One text generation on the library's own cache: prefill in bounded parts, then a token for each step."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from torch import Tensor

from llmos.syscalls.errors import NotSupported, TooLarge

from ..contract import DoneEvent, Request, StepEvent
from .answers import Answer
from .decoder import Decoder, SequenceState
from .detokenizer import Vocabulary
from .loader import Bundle
from .sampling.chooser import choosers, rank
from .sampling.grammar import Grammar
from .sampling.params import check
from .sampling.sample import sample
from .tokens import SHORTER

TASK = "text-generation"
MISSING: Mapping[str, str] = {
    "prompt_logprobs": "log probabilities of the prompt are made on rung P",
    "speculative": "tokens are guessed ahead on rung P",
}


class Generation:
    """A request for text. `state` is a conversation's, whose first tokens are reused, or a fresh one.

    When it ends well, the state holds the prompt and the new tokens, also after a cancel once the prompt was through;
    when it fails or is cancelled before, the state holds what it held. Raises BadArgument, NotSupported, TooLarge.
    """

    def __init__(
        self, request: Request, bundle: Bundle, decoder: Decoder, vocabulary: Vocabulary, prompt: Sequence[int],
        state: SequenceState, limit: int,
    ) -> None:  # fmt: skip
        sampling = request.sampling
        check(sampling, bundle.vocabulary)
        for name, why in MISSING.items():
            if getattr(sampling, name) not in (None, 1):
                raise NotSupported(f"{name} is not offered for {bundle.about.architecture}: {why}", why=why)
        self.id = request.id
        self.state = state
        self.finished = False
        self._decoder, self._prompt, self._vocabulary = decoder, prompt, vocabulary
        room = room_for(prompt, sampling.max_tokens, limit)
        self._choosers = choosers(sampling, prompt)
        self._answers = [Answer(request, at, bundle, vocabulary, prompt, room) for at in range(len(self._choosers))]
        self._at = 0
        """The answer that is being made; each begins with the state after the prompt."""
        self._running = state
        self._after_prompt: tuple[SequenceState, Tensor] | None = None
        self._before: list[int] | None = None
        self._cached = self._device_ns = 0

    def follow(self, grammar: Grammar) -> None:
        """Limit the tokens of all answers, before the first step."""
        for chooser in self._choosers:
            chooser.constraint = grammar.copy()

    def next_tokens(self) -> int:
        """How many tokens the next step takes through the model."""
        if self._before is None:
            return len(self._prompt)
        return self._decoder.reach(self._running) - self._running.done

    def advance(self) -> list[StepEvent]:
        """One bounded step. Raises what choosing a token raises."""
        if self._before is None:
            self._begin()
        started = time.perf_counter_ns()
        state = self._running
        logits = self._decoder.run(state, self._decoder.reach(state))
        covered = state.done == state.length
        if covered:
            self._choose(logits)
        self._device_ns += time.perf_counter_ns() - started
        return self._events() if covered else []

    def cancel(self) -> list[StepEvent]:
        """End now with what there is."""
        if not self._answers[0].tokens:
            self.undo()
        for answer in self._answers:
            if not answer.reason:
                answer.end("cancelled")
        return self._events()

    def _choose(self, logits: Tensor) -> None:
        """The next token of the answer, and the first of those after it while they end with their first."""
        if self._after_prompt is None and len(self._answers) > 1:
            self._after_prompt = self._decoder.fork(self._running), logits.clone()
        while not self._take(logits) and self._at + 1 < len(self._answers):
            assert self._after_prompt is not None
            self._at += 1
            state, logits = self._after_prompt
            self._running = self._decoder.fork(state)

    def _take(self, logits: Tensor) -> bool:
        """Choose a token of the current answer; says whether the answer goes on."""
        answer = self._answers[self._at]
        if not answer.reason:
            chosen = sample([self._choosers[self._at]], logits[None], self._vocabulary)[0]
            if chosen.error is not None:
                raise chosen.error
            self._running.append([chosen.token])
            answer.take(chosen.token, chosen.logprob, chosen.finished)
        return not answer.reason

    def undo(self) -> None:
        """Put the state back to what it was before this request."""
        if self._before is None:
            return
        common = common_prefix(self._before, self._prompt)
        self._decoder.rewind(self.state, min(common, self.state.length))
        self.state.append(self._before[self.state.length :])

    def _begin(self) -> None:
        """Reuse what the conversation's cache covers of the prompt; its last token always runs, for its logits."""
        self._before = self.state.tokens()
        common = common_prefix(self._before, self._prompt)
        self._decoder.rewind(self.state, min(common, len(self._prompt) - 1))
        self._cached = self.state.done if self.state.cache_bytes() else 0
        self.state.append(self._prompt[self.state.length :])

    def _events(self) -> list[StepEvent]:
        chunks = [answer.chunk() for answer in self._answers]
        events: list[StepEvent] = [chunk for chunk in chunks if chunk is not None]
        if all(answer.reason for answer in self._answers):
            self.finished = True
            events.append(self._done())
        return events

    def _done(self) -> DoneEvent:
        best = [self._answers[chooser.choice] for chooser in rank(self._choosers)]
        return DoneEvent(
            self.id, TASK, tuple(answer.result(at) for at, answer in enumerate(best)),
            prompt_tokens=len(self._prompt), cached_tokens=self._cached,
            new_tokens=sum(len(answer.tokens) for answer in self._answers), device_ns=self._device_ns,
        )  # fmt: skip


def room_for(prompt: Sequence[int], most: int, limit: int) -> int:
    """How many tokens an answer may have. Raises TooLarge for a prompt beyond the limit."""
    if len(prompt) > limit:
        said = f"the prompt has {len(prompt)} tokens, there is room for {limit}; {SHORTER}"
        raise TooLarge(said, limit=limit, got=len(prompt))
    return min(most, limit - len(prompt))


def common_prefix(left: Sequence[int], right: Sequence[int]) -> int:
    """How many tokens two sequences have in common at their start."""
    for at, (one, other) in enumerate(zip(left, right, strict=False)):
        if one != other:
            return at
    return min(len(left), len(right))
