"""Inputs to vectors, by models that write: hidden states of the last layer, pooled; a text in each step."""

from __future__ import annotations

import inspect
import time
from typing import Any

import torch

from ..contract import ChoiceResult, DoneEvent, Request, StepEvent
from ..ops.table import OpTable
from .loader import Bundle
from .tasks.embeddings import Embeddings, settings_of
from .tokens import each_text, truncated

TASK = Embeddings.name


class Embedding:
    """A request for a vector of each text. Special tokens take part in the mean, as in sentence-transformers.

    Raises BadArgument for unknown options, TooLarge for an input beyond the context when nothing truncates it.
    """

    def __init__(self, request: Request, bundle: Bundle, ops: OpTable) -> None:
        self.id = request.id
        self.finished = False
        self._settings, self._bundle = settings_of(request, TASK, Embeddings.options), bundle
        self._pool = ops.choose("pool_states", {"device": "cpu", "dtype": "float32"}).implementation.call
        made = [truncated(bundle, each, self._settings.max_tokens) for each in each_text(request.prompt)]
        self._texts, self._cut = [ids for ids, _ in made], tuple(cut for _, cut in made)
        self._rows: list[list[float]] = []
        self._spent_ns = 0

    def next_tokens(self) -> int:
        """How many tokens the next step takes through the model."""
        return len(self._texts[len(self._rows)])

    def advance(self) -> list[StepEvent]:
        """One text."""
        started = time.perf_counter_ns()
        rows = self._pool(*self._states(self._texts[len(self._rows)]), self._settings.pooling)
        if self._settings.normalize:
            rows = torch.nn.functional.normalize(rows, dim=-1)
        self._rows += rows.tolist()
        self._spent_ns += time.perf_counter_ns() - started
        self.finished = len(self._rows) == len(self._texts)
        if not self.finished:
            return []
        count, spent = self._count(), self._spent_ns
        return [DoneEvent(self.id, TASK, (), self._rows, self._cut, prompt_tokens=count, device_ns=spent)]

    def cancel(self) -> list[StepEvent]:
        """End now, without a vector; an empty choice says why."""
        self.finished = True
        choice = ChoiceResult(0, "", (), "cancelled")
        return [DoneEvent(self.id, TASK, (choice,), prompt_tokens=self._count())]

    def undo(self) -> None:
        """Nothing is kept."""

    def _count(self) -> int:
        return sum(len(ids) for ids in self._texts)

    def _states(self, text: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """States [1, T, D] and the mask [1, T] of tokens that count; an encoder's padding does not."""
        ids = torch.tensor([text], dtype=torch.long, device=self._bundle.module.device)
        mask = torch.ones_like(ids)
        module, options = self._bundle.module.base_model, dict[str, Any]()
        if not self._bundle.about.causal and self._bundle.tokenizer.pad_token_id is not None:
            options["attention_mask"] = mask = ids.ne(self._bundle.tokenizer.pad_token_id).long()
        if "use_cache" in inspect.signature(module.forward).parameters:
            options["use_cache"] = False
        answer: Any = module(input_ids=ids, return_dict=True, **options)
        return answer.last_hidden_state, mask

