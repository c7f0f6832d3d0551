"""One answer as it grows: its tokens, its text in whole characters, where it ends, and what was already sent of it."""

from __future__ import annotations

from collections.abc import Sequence

from ..contract import ChoiceResult, ChunkEvent, Request, TokenLogprob
from .detokenizer import Vocabulary
from .loader import Bundle
from .stops import StopMatcher


class Answer:
    """The answer number `index` to a request. `room` is how many tokens it may have at most.

    `reason` is empty until it ends: then stop, length, cancelled or grammar. Raises BadArgument for stop strings that
    cannot be looked for.
    """

    def __init__(
        self, request: Request, index: int, bundle: Bundle, vocabulary: Vocabulary, prompt: Sequence[int], room: int
    ) -> None:
        sampling = request.sampling
        self.index = index
        self.reason = ""
        self.tokens: list[int] = []
        self._logprobs: list[TokenLogprob] | None = None if sampling.logprobs is None else []
        self._request = request.id
        self._stream = request.stream
        self.ends = end_tokens(request, bundle)
        self.room = room
        starts = request.prompt.messages is not None and sampling.grammar is None
        # an answer to a chat begins a text, whose first space many tokenizers drop; a grammar has counted that space
        self._detokenizer = vocabulary.detokenizer(() if starts else prompt)
        self._stops = StopMatcher(sampling.stop)
        self._text: list[str] = []
        self._pending = ""
        self._sent = 0
        if room == 0:
            self.end("length")

    def take(self, token: int, logprob: TokenLogprob | None = None, complete: bool = False) -> None:
        """The next token; `complete` when the grammar lets nothing follow."""
        self.tokens.append(token)
        if self._logprobs is not None and logprob is not None:
            self._logprobs.append(logprob)
        if token in self.ends:
            self.end("stop")
            return
        self._add(self._stops.feed(self._detokenizer.feed(token)))
        if self._stops.matched is not None:
            self.reason = "stop"
        elif complete:
            self.end("grammar")
        elif len(self.tokens) == self.room:
            self.end("length")

    def end(self, reason: str) -> None:
        """Nothing follows."""
        self.reason = reason
        self._add(self._stops.flush())

    def chunk(self) -> ChunkEvent | None:
        """What can be sent now and was not: whole characters, and at the end the tokens that have none."""
        if not self._stream or not (self._pending or (self.reason and self._sent < len(self.tokens))):
            return None
        text, self._pending = self._pending, ""
        first, self._sent = self._sent, len(self.tokens)
        logprobs = None if self._logprobs is None else self._logprobs[first:]
        return ChunkEvent(self._request, text, self.tokens[first:], self.index, logprobs)

    def result(self, index: int | None = None) -> ChoiceResult:
        """The whole answer."""
        number = self.index if index is None else index
        return ChoiceResult(number, "".join(self._text), self.tokens, self.reason, self._logprobs)

    def _add(self, text: str) -> None:
        self._text.append(text)
        self._pending += text


def end_tokens(request: Request, bundle: Bundle) -> frozenset[int]:
    """The tokens that end an answer."""
    sampling = request.sampling
    return frozenset(sampling.stop_token_ids) | (frozenset() if sampling.ignore_eos else bundle.eos)
