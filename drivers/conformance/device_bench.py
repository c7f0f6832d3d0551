"""A started device on a bench: makes requests, steps, and sees that events keep to the contract."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from llmos.drivers import convert
from llmos.drivers.contract import (
    ChoiceResult, ChunkEvent, Device, DoneEvent, EmbedSettings, FailedEvent, Facts, LoadedModel, LoadSettings,
    ModelSource, Prompt, Request, Row, SamplingParams, StepEvent, TuneEvent,
)  # fmt: skip
from llmos.syscalls.errors import LlmosError

from .verdicts import expect, expect_sendable

MODEL = "check"
PROMPT = "The for statement is used to iterate over the elements of a sequence"


@dataclass
class Outcome:
    """What came of one request."""

    chunks: list[ChunkEvent] = field(default_factory=list)
    done: DoneEvent | None = None
    error: LlmosError | None = None
    steps: int = 0

    @property
    def ended(self) -> bool:
        return self.done is not None or self.error is not None

    def result(self) -> DoneEvent:
        """Raises the request's error if it has one."""
        if self.error is not None:
            raise self.error
        assert self.done is not None
        return self.done

    @property
    def choice(self) -> ChoiceResult:
        choices = self.result().choices
        expect(bool(choices), "the result has no choice")
        return choices[0]


class DeviceBench:
    """A started device, with a model that is loaded when a check first needs it."""

    def __init__(self, name: str, device: Device, source: ModelSource) -> None:
        self.name = name
        self.device = device
        self.source = source
        self.stopped = False
        self._loaded: dict[str, LoadedModel] = {}
        self._numbers = itertools.count(1)

    @property
    def facts(self) -> Facts:
        return self.device.facts()

    def load(self, model: str = MODEL, settings: LoadSettings | None = None) -> LoadedModel:
        """Load a model, unless it is loaded."""
        if model not in self._loaded:
            quiet: Callable[..., None] = lambda *_given, **_named: None  # noqa: E731 - a sink needs no name
            self._loaded[model] = self.device.load(model, self.source, settings or LoadSettings(), quiet)
        return self._loaded[model]

    def is_loaded(self, model: str = MODEL) -> bool:
        return model in self._loaded

    def unload(self, model: str = MODEL) -> int:
        self._loaded.pop(model, None)
        return self.device.unload(model)

    def new_id(self) -> str:
        return f"request-{next(self._numbers)}"

    def request(
        self,
        prompt: Prompt | str = PROMPT,
        *,
        task: str = "auto",
        stream: bool = False,
        context: str = "",
        model: str = MODEL,
        embed: EmbedSettings | None = None,
        sampling: SamplingParams | None = None,
    ) -> Request:
        """A request with an id of its own."""
        if isinstance(prompt, str):
            prompt = Prompt(text=prompt)
        chosen = sampling or SamplingParams(max_tokens=8)
        return Request(self.new_id(), model, prompt, task, chosen, embed, context, stream)

    def run(self, *requests: Request) -> list[Outcome]:
        """Submit requests and step until all have ended."""
        for request in requests:
            self.device.submit(request)
        outcomes = {request.id: Outcome() for request in requests}
        while not all(outcome.ended for outcome in outcomes.values()):
            self.step(outcomes)
        return list(outcomes.values())

    def events(self) -> list[StepEvent]:
        """What one step says of requests; nobody tunes here."""
        said: list[StepEvent] = []
        for event in self.device.step():
            expect(not isinstance(event, TuneEvent), f"step() returned a {type(event).__name__}, and nothing is tuned")
            if not isinstance(event, TuneEvent):
                said.append(event)
        return said

    def one(self, request: Request) -> Outcome:
        return self.run(request)[0]

    def step(self, outcomes: dict[str, Outcome]) -> None:
        """One step; every event must belong to a request that runs."""
        for event in self.events():
            outcome = outcomes.get(event.request)
            expect(outcome is not None, f"step() answers request {event.request!r}, which nobody made")
            assert outcome is not None
            expect(not outcome.ended, f"step() answers request {event.request!r} again after its end")
            if isinstance(event, ChunkEvent):
                outcome.chunks.append(event)
                expect_sendable("a chunk", convert.from_chunk(event))
            elif isinstance(event, DoneEvent):
                outcome.done = event
                expect_sendable("a result", convert.from_done(event, "1"))
            else:
                expect(isinstance(event, FailedEvent), f"step() returned a {type(event).__name__}")
                outcome.error = event.error
        for outcome in outcomes.values():
            outcome.steps += 1

    def held(self, model: str | None = None) -> int:
        """Bytes that the device holds, of one model or in all."""
        return sum(row.allocator for row in self.rows() if model in (None, row.owner))

    def rows(self) -> Sequence[Row]:
        return self.device.memory()

    def close(self) -> None:
        if not self.stopped:
            self.device.stop()
