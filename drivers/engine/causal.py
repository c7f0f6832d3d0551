"""One text generation on the library's own cache: prefill in bounded parts, then a token for each step."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from torch import Tensor

from llmos.syscalls.errors import NotSupported, TooLarge

from ..contract import DoneEvent, Request, StepEvent
from .answers import Answer, end_tokens
from .decoder import Decoder, SequenceState
from .detokenizer import Vocabulary
from .loader import Bundle
from .sampling.chooser import choosers
from .sampling.grammar import Grammar, GrammarCompiler
from .sampling.params import check
from .sampling.sample import sample

TASK = "text-generation"
_ONE = "this model is served one answer at a time; send the request again with another seed"
MISSING: Mapping[str, str] = {
    "n": _ONE,
    "best_of": _ONE,
    "beams": "beam search is not made by this runner",
    "prompt_logprobs": "log probabilities of the prompt are not made by this runner",
    "speculative": "speculative decoding is not made by this runner",
}


class Generation:
    """A request for text. `state` is a conversation's, whose first tokens are reused, or a fresh one.

    When it ends well, the state holds the prompt and the new tokens, also after a cancel once the prompt was through;
    when it fails or is cancelled before, the state holds what it held. Raises BadArgument, NotSupported, TooLarge.
    """

    def __init__(
        self, request: Request, bundle: Bundle, decoder: Decoder, vocabulary: Vocabulary, grammars: GrammarCompiler,
        prompt: Sequence[int], state: SequenceState, limit: int,
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
        self._answer = Answer(request, 0, bundle, vocabulary, prompt, room_for(prompt, sampling.max_tokens, limit))
        self._choosers = choosers(sampling, prompt, constraint(request, bundle, grammars))
        self._before: list[int] | None = None
        self._cached = self._device_ns = 0

    def next_tokens(self) -> int:
        """How many tokens the next step takes through the model."""
        if self._before is None:
            return len(self._prompt)
        return self._decoder.reach(self.state) - self.state.done

    def advance(self) -> list[StepEvent]:
        """One bounded step. Raises what choosing a token raises."""
        if self._before is None:
            self._begin()
        started = time.perf_counter_ns()
        logits = self._decoder.run(self.state, self._decoder.reach(self.state))
        covered = self.state.done == self.state.length
        if covered and not self._answer.reason:
            self._choose(logits)
        self._device_ns += time.perf_counter_ns() - started
        return self._events() if covered else []

    def _choose(self, logits: Tensor) -> None:
        chosen = sample(self._choosers, logits[None], self._vocabulary)[0]
        if chosen.error is not None:
            raise chosen.error
        self.state.append([chosen.token])
        self._answer.take(chosen.token, chosen.logprob, chosen.finished)

    def cancel(self) -> list[StepEvent]:
        """End now with what there is."""
        if not self._answer.tokens:
            self.undo()
        self._answer.end("cancelled")
        return self._events()

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
        chunk = self._answer.chunk()
        events: list[StepEvent] = [] if chunk is None else [chunk]
        if self._answer.reason:
            self.finished = True
            events.append(
                DoneEvent(
                    self.id, TASK, (self._answer.result(),), prompt_tokens=len(self._prompt),
                    cached_tokens=self._cached, new_tokens=len(self._answer.tokens), device_ns=self._device_ns,
                )
            )  # fmt: skip
        return events


def constraint(request: Request, bundle: Bundle, grammars: GrammarCompiler) -> Grammar | None:
    """What limits the tokens of the answers. Raises BadArgument, NotSupported."""
    sampling = request.sampling
    if sampling.grammar is None:
        return None
    return grammars.compile(sampling.grammar, end_tokens(request, bundle))


def room_for(prompt: Sequence[int], most: int, limit: int) -> int:
    """How many tokens an answer may have. Raises TooLarge for a prompt beyond the limit."""
    if len(prompt) > limit:
        said = f"the prompt has {len(prompt)} tokens, there is room for {limit}"
        raise TooLarge(said, limit=limit, got=len(prompt))
    return min(most, limit - len(prompt))


def common_prefix(left: Sequence[int], right: Sequence[int]) -> int:
    """How many tokens two sequences have in common at their start."""
    for at, (one, other) in enumerate(zip(left, right, strict=False)):
        if one != other:
            return at
    return min(len(left), len(right))
