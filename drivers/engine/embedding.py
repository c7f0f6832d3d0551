"""Inputs to vectors: hidden states of the last layer, pooled."""

from __future__ import annotations

import inspect
import time
from typing import Any

import torch

from llmos.syscalls.errors import BadArgument

from ..contract import ChoiceResult, DoneEvent, EmbedSettings, Request, StepEvent
from ..ops.table import OpTable
from .loader import Bundle
from .tokens import truncated

TASK = "feature-extraction"
POOLINGS = ("mean", "cls", "last")


class Embedding:
    """A request for one vector. Special tokens take part in the mean, as in sentence-transformers.

    Raises BadArgument for an unknown pooling, TooLarge for an input beyond the context when nothing truncates it.
    """

    def __init__(self, request: Request, bundle: Bundle, ops: OpTable) -> None:
        settings = request.embed or EmbedSettings()
        if settings.pooling not in POOLINGS:
            want = ", ".join(POOLINGS)
            said = f"pooling is {settings.pooling!r}, not one of {want}"
            raise BadArgument(said, name="pooling", got=settings.pooling, want=want)
        if settings.max_tokens is not None and settings.max_tokens < 1:
            got = str(settings.max_tokens)
            raise BadArgument(f"max_tokens is {got}, not at least 1", name="max_tokens", got=got, want="at least 1")
        self.id = request.id
        self.finished = False
        self._settings, self._bundle = settings, bundle
        self._pool = ops.choose("pool_states", {"device": "cpu", "dtype": "float32"}).implementation.call
        self._ids, self._truncated = truncated(bundle, request.prompt, settings.max_tokens)

    def next_tokens(self) -> int:
        """How many tokens the next step takes through the model."""
        return len(self._ids)

    def advance(self) -> list[StepEvent]:
        """The whole input at once."""
        started = time.perf_counter_ns()
        rows = self._pool(*self._states(), self._settings.pooling)
        if self._settings.normalize:
            rows = torch.nn.functional.normalize(rows, dim=-1)
        self.finished = True
        spent, count = time.perf_counter_ns() - started, len(self._ids)
        return [DoneEvent(self.id, TASK, (), rows.tolist(), (self._truncated,), prompt_tokens=count, device_ns=spent)]

    def cancel(self) -> list[StepEvent]:
        """End now, without a vector; an empty choice says why."""
        self.finished = True
        choice = ChoiceResult(0, "", (), "cancelled")
        return [DoneEvent(self.id, TASK, (choice,), prompt_tokens=len(self._ids))]

    def undo(self) -> None:
        """Nothing is kept."""

    def _states(self) -> tuple[torch.Tensor, torch.Tensor]:
        """States [1, T, D] and the mask [1, T] of tokens that count; an encoder's padding does not."""
        ids = torch.tensor([self._ids], dtype=torch.long)
        mask = torch.ones_like(ids)
        module, options = self._bundle.module.base_model, dict[str, Any]()
        if not self._bundle.about.causal and self._bundle.tokenizer.pad_token_id is not None:
            options["attention_mask"] = mask = ids.ne(self._bundle.tokenizer.pad_token_id).long()
        if "use_cache" in inspect.signature(module.forward).parameters:
            options["use_cache"] = False
        answer: Any = module(input_ids=ids, return_dict=True, **options)
        return answer.last_hidden_state, mask

