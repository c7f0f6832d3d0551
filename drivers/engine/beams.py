"""Beam search, by the library's own `generate`: a whole request in one long step."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch

from ..contract import DoneEvent, Request, StepEvent
from . import causal
from .answers import Answer, end_tokens
from .causal import room_for
from .decoder import SequenceState
from .detokenizer import Vocabulary
from .loader import Bundle
from .sampling.params import check


class BeamSearch:
    """A request for the likeliest of `beams` continuations; see `causal.Generation` for what its state holds.

    Nothing is streamed before the end, since the best beam may change until then. Raises BadArgument, TooLarge.
    """

    def __init__(
        self, request: Request, bundle: Bundle, vocabulary: Vocabulary, prompt: Sequence[int], state: SequenceState,
        limit: int,
    ) -> None:  # fmt: skip
        check(request.sampling, bundle.vocabulary)
        self.id = request.id
        self.state = state
        self.finished = False
        self._beams = request.sampling.beams
        self._ends = sorted(end_tokens(request, bundle))
        self._bundle, self._prompt = bundle, prompt
        room = room_for(prompt, request.sampling.max_tokens, limit)
        self._answer = Answer(request, 0, bundle, vocabulary, prompt, room)
        self._device_ns = 0

    def next_tokens(self) -> int:
        """How many tokens go through the model at most."""
        return len(self._prompt) + self._beams * self._answer.room

    def advance(self) -> list[StepEvent]:
        """The whole search."""
        started = time.perf_counter_ns()
        for token in self._search() if not self._answer.reason else ():
            if not self._answer.reason:
                self._answer.take(token)
        if not self._answer.reason:
            self._answer.end("length")
        self._device_ns = time.perf_counter_ns() - started
        self.state.forget(0)
        self.state.append([*self._prompt, *self._answer.tokens])
        return self._events()

    def cancel(self) -> list[StepEvent]:
        """End before it began."""
        self._answer.end("cancelled")
        return self._events()

    def undo(self) -> None:
        """The state is changed when all is done."""

    def _search(self) -> list[int]:
        module: Any = self._bundle.module
        ids = torch.tensor([self._prompt], device=module.device)
        found = module.generate(
            ids, attention_mask=torch.ones_like(ids), num_beams=self._beams, do_sample=False,
            max_new_tokens=self._answer.room, eos_token_id=self._ends or None,
            pad_token_id=self._ends[0] if self._ends else 0,
        )  # fmt: skip
        tokens: list[int] = found[0, len(self._prompt) :].tolist()
        return tokens

    def _events(self) -> list[StepEvent]:
        self.finished = True
        chunk = self._answer.chunk()
        done = DoneEvent(
            self.id, causal.TASK, (self._answer.result(),), prompt_tokens=len(self._prompt),
            new_tokens=len(self._answer.tokens), device_ns=self._device_ns,
        )  # fmt: skip
        return [done] if chunk is None else [chunk, done]
