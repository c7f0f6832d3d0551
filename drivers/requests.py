"""One inference as a driver sees it: what goes in, how tokens are chosen, what comes out. Plain classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llmos.syscalls.errors import BadArgument, LlmosError


@dataclass(frozen=True)
class TensorView:
    """A dense, C-contiguous, little-endian tensor: raw bytes, mapped from a shared buffer or taken from the message."""

    dtype: str
    shape: Sequence[int]
    data: memoryview


@dataclass(frozen=True)
class MediaPart:
    """An encoded picture or sound: `kind` is image, audio or video; `data` is valid until the request ends."""

    kind: str
    data: memoryview


@dataclass(frozen=True)
class TablePart:
    """Rows under named columns."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]


Part = str | MediaPart | TablePart
"""One of several things in a prompt; text is a plain string."""


@dataclass(frozen=True)
class Prompt:
    """What goes into a model: exactly one of `text`, `ids`, `messages`, `parts`, `tensors` is set.

    `tensors` and `parts` arrive only at a device whose facts have the features of these names; what they refer to is
    valid until the request ends.
    """

    text: str | None = None
    ids: Sequence[int] | None = None
    messages: Sequence[Mapping[str, Any]] | None = None
    tools: Sequence[Mapping[str, Any]] = ()
    template_options: Mapping[str, Any] = field(default_factory=dict)
    tensors: Mapping[str, TensorView] | None = None
    parts: Sequence[Part] | None = None


@dataclass(frozen=True)
class SamplingParams:
    """The same fields and defaults as `llmos.syscalls.types.Sampling`; see there."""

    max_tokens: int = 128
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    seed: int | None = None
    stop: Sequence[str] = ()
    stop_token_ids: Sequence[int] = ()
    ignore_eos: bool = False
    n: int = 1
    best_of: int | None = None
    beams: int = 1
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    grammar: Mapping[str, Any] | None = None
    speculative: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class EmbedSettings:
    """How token vectors become one vector: `pooling` is mean, cls or last; `max_tokens` truncates."""

    pooling: str = "mean"
    normalize: bool = True
    max_tokens: int | None = None


@dataclass(frozen=True)
class Request:
    """One inference. With `stream`, chunks are emitted as they come; else only the result.

    `options` belong to the task: a driver refuses those that it does not know. A driver that takes several requests at
    a time serves the class interactive before batch before background, a higher `priority` first within a class, and
    may give up what has not ended at its `deadline`, in seconds of `time.monotonic`.
    """

    id: str
    model: str
    prompt: Prompt
    task: str = "auto"
    sampling: SamplingParams = SamplingParams()
    embed: EmbedSettings | None = None
    context: str = ""
    stream: bool = False
    tenant: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    work_class: str = "interactive"
    priority: int = 0
    deadline: float | None = None

    def refuse_options(self) -> None:
        """Raises BadArgument when there are options, for tasks that know none."""
        for name in self.options:
            said = f"the task {self.task} takes no options, not {name!r}; max_tokens and the like stand beside them"
            raise BadArgument(said, name=name, want="no options")


@dataclass(frozen=True)
class TokenLogprob:
    token: int
    text: str
    logprob: float
    top: Sequence[tuple[int, str, float]] = ()


@dataclass(frozen=True)
class ChunkEvent:
    """A piece of a streamed result: whole characters only."""

    request: str
    text: str
    tokens: Sequence[int]
    index: int = 0
    logprobs: Sequence[TokenLogprob] | None = None


@dataclass(frozen=True)
class ChoiceResult:
    """`tokens` are the new ids with the end token; `text` is without special tokens and stop string.

    `reason` is stop, length, cancelled or grammar.
    """

    index: int
    text: str
    tokens: Sequence[int]
    reason: str
    logprobs: Sequence[TokenLogprob] | None = None


@dataclass(frozen=True)
class LabelScore:
    label: str
    score: float


@dataclass(frozen=True)
class LabelsResult:
    """Classification: labels, best first."""

    labels: Sequence[LabelScore]


@dataclass(frozen=True)
class SpanResult:
    """`start` and `end` are characters of the input; `text` is what stands there as the model reads it."""

    label: str
    score: float
    start: int
    end: int
    text: str


@dataclass(frozen=True)
class SpansResult:
    """Labelled parts of a text."""

    spans: Sequence[SpanResult]


@dataclass(frozen=True)
class ScoresResult:
    """One score for each document, in the order they were given."""

    scores: Sequence[float]


@dataclass(frozen=True)
class AnswerResult:
    """A part of the text that answers a question; `start` and `end` are its characters."""

    text: str
    score: float
    start: int
    end: int


@dataclass(frozen=True)
class TranscriptResult:
    """What was said; segments are (start, end, text) in seconds."""

    text: str
    segments: Sequence[tuple[float, float, str]] = ()


TaskResult = LabelsResult | SpansResult | ScoresResult | AnswerResult | TranscriptResult


@dataclass(frozen=True)
class DoneEvent:
    """A request's result. `embeddings` are rows of float32; `device_ns` is time spent computing for it.

    At most one of `embeddings`, `tensors`, `result` is set. `accepted_tokens` counts guessed tokens that were right.
    """

    request: str
    task: str
    choices: Sequence[ChoiceResult] = ()
    embeddings: Sequence[Sequence[float]] | None = None
    truncated: Sequence[bool] = ()
    tensors: Mapping[str, TensorView] | None = None
    result: TaskResult | None = None
    prompt_tokens: int = 0
    cached_tokens: int = 0
    new_tokens: int = 0
    accepted_tokens: int = 0
    device_ns: int = 0
    prompt_logprobs: Sequence[TokenLogprob] | None = None


@dataclass(frozen=True)
class Overrun:
    """A step needed `measured` bytes beside weights, keys and values, for which `predicted` were planned; `what` is the
    kind of the row."""

    predicted: int
    measured: int
    what: str = "workspace"


@dataclass(frozen=True)
class FailedEvent:
    """A request's error; with `overrun`, because the device ran out of memory."""

    request: str
    error: LlmosError
    overrun: Overrun | None = None
    device_ns: int = 0


@dataclass(frozen=True)
class Usage:
    """What a request that runs took so far: time spent computing for it, tokens that went through the model, and the
    bytes of the device that it holds now."""

    device_ns: int
    tokens: int
    bytes: int = 0


StepEvent = ChunkEvent | DoneEvent | FailedEvent
