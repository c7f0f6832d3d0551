"""Each check of requests catches the violation it is for."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from llmos.drivers.conformance.inference_checks import INFERENCE_CHECKS
from llmos.drivers.contract import (
    ChoiceResult, ChunkEvent, DoneEvent, Facts, FailedEvent, Request, SamplingParams, StepEvent,
)  # fmt: skip
from llmos.drivers.devices.null import NullDevice
from llmos.syscalls.errors import LlmosError, NotFound, NotSupported


class Rewriting(NullDevice):
    """Lets a subclass change each result before it is given out."""

    def rewrite(self, event: DoneEvent, request: Request) -> DoneEvent:
        return event

    def step(self) -> Sequence[StepEvent]:
        requests = {name: job.request for name, job in self._jobs.items()}
        return [
            self.rewrite(event, requests[event.request]) if isinstance(event, DoneEvent) else event
            for event in super().step()
        ]


class Choices(Rewriting):
    def choice(self, choice: ChoiceResult, request: Request) -> ChoiceResult:
        return choice

    def rewrite(self, event: DoneEvent, request: Request) -> DoneEvent:
        return replace(event, choices=[self.choice(choice, request) for choice in event.choices])


class OtherSampling(NullDevice):
    def change(self, sampling: SamplingParams) -> SamplingParams:
        return sampling

    def submit(self, request: Request) -> None:
        super().submit(replace(request, sampling=self.change(request.sampling)))


class OddReason(Choices):
    def choice(self, choice: ChoiceResult, request: Request) -> ChoiceResult:
        return replace(choice, reason="bored")


class NoCount(Rewriting):
    def rewrite(self, event: DoneEvent, request: Request) -> DoneEvent:
        return replace(event, new_tokens=0)


class OneTooMany(OtherSampling):
    def change(self, sampling: SamplingParams) -> SamplingParams:
        return replace(sampling, max_tokens=sampling.max_tokens + 1)


class Moody(Choices):
    def choice(self, choice: ChoiceResult, request: Request) -> ChoiceResult:
        return replace(choice, text=choice.text + str(random.random()))


class Seedless(Choices):
    def choice(self, choice: ChoiceResult, request: Request) -> ChoiceResult:
        random_end = [random.randrange(256) for _ in range(4)] if request.sampling.temperature else []
        return replace(choice, tokens=[*choice.tokens, *random_end])


class Unasked(NullDevice):
    def submit(self, request: Request) -> None:
        super().submit(replace(request, stream=True))


class Stutters(NullDevice):
    def step(self) -> Sequence[StepEvent]:
        return [replace(e, text=e.text * 2) if isinstance(e, ChunkEvent) else e for e in super().step()]


class SplitsTokens(NullDevice):
    def step(self) -> Sequence[StepEvent]:
        return [replace(e, tokens=[]) if isinstance(e, ChunkEvent) else e for e in super().step()]


class Counts(Rewriting):
    def rewrite(self, event: DoneEvent, request: Request) -> DoneEvent:
        return replace(event, prompt_tokens=event.prompt_tokens + 1)


class NoChat(NullDevice):
    def submit(self, request: Request) -> None:
        if request.prompt.messages is not None:
            raise NotFound("no template")
        super().submit(request)


class Unstoppable(OtherSampling):
    def change(self, sampling: SamplingParams) -> SamplingParams:
        return replace(sampling, stop=())


class OneChoice(OtherSampling):
    def change(self, sampling: SamplingParams) -> SamplingParams:
        return replace(sampling, n=1)


class NoLogprobs(OtherSampling):
    def change(self, sampling: SamplingParams) -> SamplingParams:
        return replace(sampling, logprobs=None)


class Tolerant(OtherSampling):
    def change(self, sampling: SamplingParams) -> SamplingParams:
        return SamplingParams(max_tokens=max(0, sampling.max_tokens))


class Vague(NullDevice):
    def submit(self, request: Request) -> None:
        try:
            super().submit(request)
        except LlmosError as error:
            raise type(error)("something is wrong") from error


class Cuts(NullDevice):
    def submit(self, request: Request) -> None:
        ids = request.prompt.ids
        super().submit(request if ids is None else replace(request, prompt=replace(request.prompt, ids=ids[:100])))


class AnyTask(NullDevice):
    def submit(self, request: Request) -> None:
        known = request.task in ("auto", "feature-extraction")
        super().submit(request if known else replace(request, task="auto"))


class Mixes(NullDevice):
    """With two requests at once their answers change places."""

    def step(self) -> Sequence[StepEvent]:
        names = list(self._jobs)
        other = dict(zip(names, reversed(names), strict=True))
        return [replace(e, request=other[e.request]) for e in super().step()]


class Touchy(NullDevice):
    def submit(self, request: Request) -> None:
        try:
            super().submit(request)
        except LlmosError:
            for job in self._jobs.values():
                job.cancelled = True
            raise


class Deaf(NullDevice):
    def cancel(self, request: str) -> None:
        """Hears nothing."""


class StrictCancel(NullDevice):
    def cancel(self, request: str) -> None:
        if request not in self._jobs:
            raise NotFound("no such request")
        super().cancel(request)


class DropsCancelled(NullDevice):
    def cancel(self, request: str) -> None:
        self._jobs.pop(request, None)


class LongRows(Rewriting):
    def rewrite(self, event: DoneEvent, request: Request) -> DoneEvent:
        rows = event.embeddings
        return event if rows is None else replace(event, embeddings=[[value * 2 for value in rows[0]]])


class MoodyRows(Rewriting):
    turn = 1.0

    def rewrite(self, event: DoneEvent, request: Request) -> DoneEvent:
        self.turn = -self.turn
        rows = event.embeddings
        return event if rows is None else replace(event, embeddings=[[value * self.turn for value in rows[0]]])


class NoTensorsOut(Rewriting):
    def rewrite(self, event: DoneEvent, request: Request) -> DoneEvent:
        return replace(event, tensors=None)


class AnyOption(NullDevice):
    def submit(self, request: Request) -> None:
        super().submit(replace(request, options={}))


BROKEN: dict[type[NullDevice], str] = {
    OddReason: "generates", NoCount: "generates", OneTooMany: "length", Moody: "greedy", Seedless: "seeded",
    Unasked: "streams", Stutters: "streams", SplitsTokens: "streams", Counts: "token_ids", NoChat: "chats",
    Unstoppable: "stops", OneChoice: "several", NoLogprobs: "logprobs", Tolerant: "wrong_sampling",
    Vague: "wrong_sampling", Cuts: "too_long", AnyTask: "unknown_task", Mixes: "together", Touchy: "one_fails",
    Deaf: "cancels", StrictCancel: "cancels", LongRows: "embeds", MoodyRows: "embeds", NoTensorsOut: "tensors",
    AnyOption: "unknown_option",
}  # fmt: skip


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_device_is_caught(device_bench: Callable[..., Any], failing: Any, kind: type[NullDevice]) -> None:
    assert BROKEN[kind] in failing(lambda: device_bench(kind), INFERENCE_CHECKS)


def test_each_check_catches_something() -> None:
    assert {check.__name__ for check in INFERENCE_CHECKS} == set(BROKEN.values())


class NoTensors(NullDevice):
    def facts(self) -> Facts:
        return replace(super().facts(), features={})


class FailsLate(NullDevice):
    """Refuses at a step what others refuse at submit: allowed."""

    def __init__(self) -> None:
        super().__init__()
        self.refused: list[FailedEvent] = []

    def submit(self, request: Request) -> None:
        try:
            super().submit(request)
        except LlmosError as error:
            if request.prompt.ids is None:
                raise
            self.refused.append(FailedEvent(request.id, error))

    def step(self) -> Sequence[StepEvent]:
        refused, self.refused = self.refused, []
        return [*refused, *super().step()]


class OnlyText(NullDevice):
    """Takes tensors, but not for the model of the checks."""

    def submit(self, request: Request) -> None:
        if request.prompt.tensors is not None:
            raise NotSupported("this model reads text", why="it is a language model")
        super().submit(request)


@pytest.mark.parametrize("kind", [NoTensors, FailsLate, OnlyText])
def test_what_is_allowed_passes(device_bench: Callable[..., Any], failing: Any, kind: type[NullDevice]) -> None:
    assert failing(lambda: device_bench(kind), INFERENCE_CHECKS) == {}
