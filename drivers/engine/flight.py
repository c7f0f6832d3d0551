"""One call of `generate` for several requests, gone through token by token."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch
from torch import Tensor

from ..contract import ChoiceResult, DoneEvent, FailedEvent, StepEvent, TaskResult, Usage
from . import turns
from .answers import Answer, end_tokens
from .detokenizer import Vocabulary
from .loader import Bundle
from .sampling.chooser import NO_TOKEN, Chooser, choosers, rank
from .sampling.grammar import GrammarCompiler
from .sampling.sample import sample
from .shared import SharedModule
from .stepping import Stepped
from .tasks.writing import Draft, WritingTask


class Pending:
    """A request with its answers so far. Raises BadArgument for sampling settings that do not fit."""

    def __init__(
        self, draft: Draft, bundle: Bundle, vocabulary: Vocabulary, grammars: GrammarCompiler, adapter: str
    ) -> None:
        request = draft.request
        self.draft, self.request, self.adapter = draft, request, adapter
        self.device_ns = 0
        self._parts = bundle, vocabulary, grammars
        grammar = request.sampling.grammar
        limit = None if grammar is None else grammars.compile(grammar, end_tokens(request, bundle))
        self.choosers: list[Chooser] = choosers(request.sampling, draft.prompt, limit)
        numbers = range(len(self.choosers))
        self.answers = [Answer(request, at, bundle, vocabulary, draft.prompt, draft.room) for at in numbers]

    @property
    def ended(self) -> bool:
        return all(answer.reason for answer in self.answers)

    @property
    def usage(self) -> Usage:
        """What it took so far."""
        written = sum(len(answer.tokens) for answer in self.answers)
        return Usage(self.device_ns, written + self.draft.tokens * bool(self.device_ns))

    def anew(self) -> Pending:
        """The same request from its beginning."""
        return Pending(self.draft, *self._parts, self.adapter)

    def chunks(self) -> list[StepEvent]:
        """What can be streamed now."""
        return [chunk for answer in self.answers if (chunk := answer.chunk()) is not None]

    def cancelled(self) -> list[StepEvent]:
        """End now with what there is."""
        for answer in self.answers:
            if not answer.reason:
                answer.end("cancelled")
        return [*self.chunks(), self.done()]

    def done(self) -> DoneEvent:
        """The answers, best first."""
        given = [self.answers[chooser.choice] for chooser in rank(self.choosers)]
        return self.told([answer.result(number) for number, answer in enumerate(given)])

    def told(self, choices: Sequence[ChoiceResult], result: TaskResult | None = None) -> DoneEvent:
        """The end of the request, with these choices."""
        written = sum(len(answer.tokens) for answer in self.answers) or sum(len(choice.tokens) for choice in choices)
        return DoneEvent(
            self.request.id, self.request.task, tuple(choices), result=result, prompt_tokens=self.draft.tokens,
            new_tokens=written, device_ns=self.device_ns,
        )  # fmt: skip


class Flight:
    """Requests that are written together. `pending` are those that have not ended."""

    def __init__(
        self, bundle: Bundle, shared: SharedModule, task: WritingTask, pending: Sequence[Pending],
        vocabulary: Vocabulary,
    ) -> None:  # fmt: skip
        self.pending = list(pending)
        self.rank = turns.rank(pending[0].request)
        """Of their class of work."""
        self.tokens = 0
        """How many each answer has so far."""
        self._bundle, self._shared, self._task, self._vocabulary = bundle, shared, task, vocabulary
        self._adapter = pending[0].adapter
        self._beams = pending[0].request.sampling.beams
        self._chooses = task.chooses and self._beams == 1
        self._all = list(pending)
        self._rows = [(each, answer) for each in pending for answer in range(len(each.answers))]
        self._prefix = 0
        self._events: list[StepEvent] = []
        self._stepped = Stepped(self._write)

    @property
    def departed(self) -> bool:
        """Whether the inputs are read."""
        return self.tokens > 0

    def next_tokens(self) -> int:
        """How many tokens the next step takes through the model."""
        rows = len(self._rows) * self._beams
        return rows if self.departed else rows * max(each.draft.length for each in self._all)

    def kv_bytes(self) -> int:
        """What the answers and what they attend to take, as full attention would."""
        tokens = sum(each.draft.length + self.tokens for each, _ in self._rows)
        return self._beams * tokens * bytes_per_token(self._bundle) if self.departed else 0

    def advance(self) -> list[StepEvent]:
        """One token for each answer, and what has ended. Raises what the model raises."""
        started = time.perf_counter_ns()
        self._shared.use(self._adapter)
        if self._stepped.advance() and not self._chooses:
            self._finish(self._stepped.result)
        spent = (time.perf_counter_ns() - started) // max(1, len(self.pending))
        for each in list(self.pending):
            each.device_ns += spent
            self._events += each.chunks()
            if each.ended:
                self._events.append(each.done())
                self.pending.remove(each)
        events, self._events = self._events, []
        return events

    def cancel(self, requests: Collection[str]) -> list[StepEvent]:
        """End some requests with what they have."""
        gone = [each for each in self.pending if each.request.id in requests]
        self.pending = [each for each in self.pending if each not in gone]
        return [event for each in gone for event in each.cancelled()]

    def close(self) -> None:
        self._stepped.close()

    @torch.inference_mode()
    def _write(self, halt: Callable[[], None]) -> Any:
        """The call of `generate`; halts after each token."""
        module = self._bundle.module
        inputs = self._task.inputs([each.draft for each, _ in self._rows])
        given = {name: _placed(value, module) for name, value in inputs.items()}
        hooks: dict[str, Any] = {"stopping_criteria": [self._stop(halt)]}
        if self._chooses:
            hooks["logits_processor"] = [self._choose]
        return module.generate(**given, **hooks, generation_config=self._config())

    def _config(self) -> Any:
        """The model's own settings; what `Sampling` says goes before them. None would mean the model's own."""
        draft = self._all[0].draft
        config = copy.deepcopy(self._bundle.module.generation_config)
        config.update(
            max_new_tokens=max(1, draft.room), do_sample=False, num_beams=self._beams, num_return_sequences=1,
            repetition_penalty=1.0, return_dict_in_generate=False, **draft.settings,
        )  # fmt: skip
        if (config.min_length or 0) > draft.room:
            config.min_length = 0
        if draft.request.sampling.ignore_eos:
            config.eos_token_id = NO_TOKEN
        return config

    def _choose(self, _ids: Tensor, scores: Tensor) -> Tensor:
        """Choose the tokens of answers that go on, and leave each row nothing else."""
        live = [
            (row, each, number)
            for row, (each, number) in enumerate(self._rows)
            if each in self.pending and not each.answers[number].reason
        ]
        chosen = sample(
            [each.choosers[number] for _, each, number in live], scores, self._vocabulary, [row for row, *_ in live]
        )
        tokens = torch.zeros(len(scores), dtype=torch.long)
        for (row, each, number), one in zip(live, chosen, strict=True):
            if one.error is None:
                each.answers[number].take(one.token, one.logprob, one.finished)
                tokens[row] = one.token
            elif each in self.pending:
                self._events.append(FailedEvent(each.request.id, one.error, device_ns=each.device_ns))
                self.pending.remove(each)
        only = torch.full_like(scores, -torch.inf)
        return only.scatter_(1, tokens[:, None].to(scores.device), 0.0)

    def _stop(self, halt: Callable[[], None]) -> Callable[..., Tensor]:
        """Halts after a token; says which rows have ended."""

        def stop(ids: Tensor, _scores: Any, **_more: Any) -> Tensor:
            self._prefix = self._prefix or ids.shape[1] - 1
            self.tokens += 1
            halt()
            if not self._chooses:
                return torch.full((len(ids),), not self.pending, device=ids.device)
            ended = [each not in self.pending or bool(each.answers[number].reason) for each, number in self._rows]
            return torch.tensor(ended, device=ids.device)

        return stop

    def _finish(self, made: Any) -> None:
        """Answers that the library has written as a whole: by the task, or token by token as if they were chosen."""
        if not self._task.chooses:
            endings = self._task.endings([each.draft for each in self._all], made)
            for each, ending in zip(self._all, endings, strict=True):
                if each in self.pending:
                    choice = ChoiceResult(0, ending.text, ending.tokens, ending.reason)
                    self._events.append(each.told([choice], ending.result))
                    self.pending.remove(each)
            return
        for (each, number), row in zip(self._rows, made[:, self._prefix :].tolist(), strict=True):
            answer = each.answers[number]
            for token in row:
                if not answer.reason:
                    answer.take(token)
            if not answer.reason:
                answer.end("stop")


def bytes_per_token(bundle: Bundle) -> int:
    """Keys and values of one token, as full attention in each layer keeps them; 0 where the configuration is silent."""
    text = bundle.about.config.get_text_config(decoder=True)
    heads, layers = getattr(text, "num_attention_heads", 0), getattr(text, "num_hidden_layers", 0)
    if not heads or not layers:
        return 0
    width = getattr(text, "head_dim", None) or text.hidden_size // heads
    shared = getattr(text, "num_key_value_heads", None) or heads
    return int(2 * layers * shared * width * bundle.about.dtype.itemsize)


def _placed(value: Any, module: Any) -> Any:
    return value.to(module.device) if isinstance(value, Tensor) else value
