"""One text generation: prefill in bounded parts, then a token for each step."""

from __future__ import annotations

import time
from collections.abc import Sequence

from llmos.syscalls.errors import TooLarge

from ..contract import ChoiceResult, ChunkEvent, DoneEvent, Request, StepEvent, TokenLogprob
from ..ops.table import OpTable
from .decoder import Decoder, SequenceState
from .detokenizer import Vocabulary
from .loader import Bundle
from .sampler import Sampler, check
from .stops import StopMatcher

TASK = "text-generation"


class Generation:
    """A request for text. `state` is a conversation's, whose first tokens are reused, or a fresh one.

    When it ends well, the state holds the prompt and the new tokens, also after a cancel once the prompt was through;
    when it fails or is cancelled before, the state holds what it held. Raises BadArgument, NotSupported, TooLarge.
    """

    def __init__(
        self, request: Request, bundle: Bundle, decoder: Decoder, vocabulary: Vocabulary, ops: OpTable,
        prompt: Sequence[int], state: SequenceState, limit: int,
    ) -> None:  # fmt: skip
        check(request.sampling, bundle.vocabulary)
        if len(prompt) > limit:
            said = f"the prompt has {len(prompt)} tokens, there is room for {limit}"
            raise TooLarge(said, limit=limit, got=len(prompt))
        sampling = request.sampling
        self.id = request.id
        self.state = state
        self.finished = False
        self._request, self._decoder, self._prompt = request, decoder, prompt
        self._ends = frozenset(sampling.stop_token_ids) | (frozenset() if sampling.ignore_eos else bundle.eos)
        self._room = min(sampling.max_tokens, limit - len(prompt))
        self._sampler = Sampler(sampling, ops, vocabulary, bundle.vocabulary, prompt)
        self._detokenizer = vocabulary.detokenizer(() if request.prompt.messages is not None else prompt)
        self._stops = StopMatcher(sampling.stop)
        self._before: list[int] | None = None
        self._cached = self._device_ns = self._sent = 0
        self._tokens: list[int] = []
        self._logprobs: list[TokenLogprob] = []
        self._text: list[str] = []

    def next_tokens(self) -> int:
        """How many tokens the next step takes through the model."""
        if self._before is None:
            return len(self._prompt)
        return self._decoder.reach(self.state) - self.state.done

    def advance(self) -> list[StepEvent]:
        """One bounded step."""
        if self._before is None:
            self._begin()
        started = time.perf_counter_ns()
        logits = self._decoder.run(self.state, self._decoder.reach(self.state))
        if self.state.done < self.state.length or self._room == 0:
            self._device_ns += time.perf_counter_ns() - started
            return [] if self.state.done < self.state.length else self._finish("length", "")
        token, logprob = self._sampler.choose(logits)
        self._device_ns += time.perf_counter_ns() - started
        self.state.append([token])
        return self._take(token, logprob)

    def cancel(self) -> list[StepEvent]:
        """End now with what there is."""
        if not self._tokens:
            self.undo()
        return self._finish("cancelled", self._stops.flush())

    def undo(self) -> None:
        """Put the state back to what it was before this request."""
        if self._before is None:
            return
        common = _common_prefix(self._before, self._prompt)
        self._decoder.rewind(self.state, min(common, self.state.length))
        self.state.append(self._before[self.state.length :])

    def _begin(self) -> None:
        """Reuse what the conversation's cache covers of the prompt; its last token always runs, for its logits."""
        self._before = self.state.tokens()
        common = _common_prefix(self._before, self._prompt)
        self._decoder.rewind(self.state, min(common, len(self._prompt) - 1))
        self._cached = self.state.done if self.state.cache_bytes() else 0
        self.state.append(self._prompt[self.state.length :])

    def _take(self, token: int, logprob: TokenLogprob | None) -> list[StepEvent]:
        self._tokens.append(token)
        if logprob is not None:
            self._logprobs.append(logprob)
        if token in self._ends:
            return self._finish("stop", self._stops.flush())
        text = self._stops.feed(self._detokenizer.feed(token))
        if self._stops.matched is not None:
            return self._finish("stop", text)
        if len(self._tokens) == self._room:
            return self._finish("length", text + self._stops.flush())
        self._text.append(text)
        return self._chunk(text) if text else []

    def _chunk(self, text: str) -> list[StepEvent]:
        if not self._request.stream:
            return []
        tokens, logprobs = self._tokens[self._sent :], self._logprobs[self._sent :]
        self._sent = len(self._tokens)
        return [ChunkEvent(self.id, text, tokens, 0, logprobs if self._asked_logprobs() else None)]

    def _finish(self, reason: str, text: str) -> list[StepEvent]:
        self.finished = True
        self._text.append(text)
        last = self._chunk(text) if text or self._sent < len(self._tokens) else []
        logprobs = self._logprobs if self._asked_logprobs() else None
        choice = ChoiceResult(0, "".join(self._text), self._tokens, reason, logprobs)
        done = DoneEvent(
            self.id, TASK, (choice,), prompt_tokens=len(self._prompt), cached_tokens=self._cached,
            new_tokens=len(self._tokens), device_ns=self._device_ns,
        )  # fmt: skip
        return [*last, done]

    def _asked_logprobs(self) -> bool:
        return self._request.sampling.logprobs is not None


def _common_prefix(left: Sequence[int], right: Sequence[int]) -> int:
    for at, (one, other) in enumerate(zip(left, right, strict=False)):
        if one != other:
            return at
    return min(len(left), len(right))
