"""echo0: a device that repeats the prompt, one character at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from llmos.drivers import sampling
from llmos.drivers.contract import (
    ChoiceResult, ChunkEvent, Device, DeviceFactory, DoneEvent, Facts, LoadedModel, LoadSettings, ModelSource,
    ProgressSink, Request, Row, StepEvent,
)  # fmt: skip
from llmos.drivers.hookspecs import hookimpl
from llmos.syscalls.errors import BadArgument, NoDeviceMemory, NotFound, NotSupported, TooLarge

CONTEXT = 4096
END = 0x110000  # the token that ends an answer: one more than the last character there is


class EchoDevice(Device):
    """Tokens are the code points of characters; a model is as large as its files and otherwise ignored."""

    config_keys: ClassVar[Mapping[str, str]] = {"memory_bytes": "how much memory the device says it has"}

    def start(self, name: str, threads: int, config: Mapping[str, Any]) -> None:
        self.device = name
        self.total = int(config.get("memory_bytes", 1 << 30))
        self.models: dict[str, int] = {}
        self.answers: dict[str, Answer] = {}

    def stop(self) -> None:
        self.models.clear()

    def facts(self) -> Facts:
        return Facts(self.device, "echo", self.total, description="repeats the prompt")

    def memory(self) -> Sequence[Row]:
        return [Row("weights", model, size, size, size) for model, size in self.models.items()]

    def plan(self, source: ModelSource, settings: LoadSettings) -> Sequence[Row]:
        if settings.dtype not in ("auto", "float32"):
            raise BadArgument(f"dtype {settings.dtype} is unknown; use float32", name="dtype", got=settings.dtype)
        return [Row("weights", source.path, predicted=sum(file.bytes for file in source.files))]

    def load(
        self, model: str, source: ModelSource, settings: LoadSettings, progress: ProgressSink, base: str = ""
    ) -> LoadedModel:
        size = sum(row.predicted for row in self.plan(source, settings))
        free = self.total - sum(self.models.values())
        if size > free:
            raise NoDeviceMemory(f"{source.path} needs {size} bytes, {free} are free", needed=size, free=free)
        self.models[model] = size
        progress(size, size)
        rows = [row for row in self.memory() if row.owner == model]
        return LoadedModel("Echo", ["text-generation"], CONTEXT, 0, rows, slots=4)

    def unload(self, model: str) -> int:
        if model not in self.models:
            raise NotFound(f"model {model} is not loaded")
        for answer in self.answers.values():
            answer.cancelled = answer.cancelled or answer.request.model == model
        return self.models.pop(model)

    def submit(self, request: Request) -> None:
        if request.model not in self.models:
            raise NotFound(f"model {request.model} is not loaded")
        if request.task not in ("auto", "text-generation") or request.context or request.prompt.messages is not None:
            raise NotSupported("echo0 generates text from a plain prompt", why="no other tasks, conversations or chat")
        request.refuse_options()
        sampling.check(request.sampling)
        prompt = request.prompt.ids or [ord(character) for character in request.prompt.text or ""]
        if len(prompt) > CONTEXT:
            raise TooLarge(f"the prompt has {len(prompt)} tokens, {CONTEXT} fit", limit=CONTEXT, got=len(prompt))
        self.answers[request.id] = Answer(request, prompt)

    def cancel(self, request: str) -> None:
        if request in self.answers:
            self.answers[request].cancelled = True

    def step(self) -> Sequence[StepEvent]:
        for answer in self.answers.values():
            answer.advance()
        events = [event for answer in self.answers.values() for event in answer.events()]
        self.answers = {name: answer for name, answer in self.answers.items() if not answer.reason}
        return events

    def step_seconds(self) -> float:
        return 0.001


class Answer:
    """One request under way."""

    def __init__(self, request: Request, prompt: Sequence[int]) -> None:
        self.request = request
        self.prompt = prompt
        self.tokens: list[int] = []
        self.text = self.reason = ""
        self.said = (0, 0)  # characters and tokens that were streamed
        self.cancelled = False

    def advance(self) -> None:
        """One more token, or the end."""
        asked, at = self.request.sampling, len(self.tokens)
        if self.cancelled:
            self.reason = "cancelled"
        elif at >= min(asked.max_tokens, CONTEXT - len(self.prompt)):
            self.reason = "length"
        else:
            again = asked.ignore_eos and self.prompt
            token = self.prompt[at % len(self.prompt)] if again else [*self.prompt, END][at]
            self.tokens.append(token)
            if token == END or token in asked.stop_token_ids:
                self.reason = "stop"
            else:
                self.text += chr(token)
            for stop in asked.stop:
                if stop in self.text:
                    self.text, self.reason = self.text.partition(stop)[0], "stop"

    def events(self) -> list[StepEvent]:
        """What there is to say. With stop strings that is nothing before the end: they may still take text away."""
        found: list[StepEvent] = []
        request = self.request
        text, tokens = self.text[self.said[0] :], self.tokens[self.said[1] :]
        if request.stream and tokens and (self.reason or not request.sampling.stop):
            self.said = (len(self.text), len(self.tokens))
            found.append(ChunkEvent(request.id, text, tokens))
        if self.reason:
            choice = ChoiceResult(0, self.text, self.tokens, self.reason)
            asked, given = len(self.prompt), len(self.tokens)
            found.append(DoneEvent(request.id, "text-generation", [choice], prompt_tokens=asked, new_tokens=given))
        return found


@hookimpl
def register_devices(register: Callable[[str, DeviceFactory], None]) -> None:
    register("echo0", EchoDevice)
