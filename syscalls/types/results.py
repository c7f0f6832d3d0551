"""What inference answers with."""

from __future__ import annotations

from msgspec import field

from .authority import Handle
from .common import Reason, TensorOut, Value


class TokenLogprob(Value):
    """Natural logarithm of the probability of one token, with the best alternatives."""

    token: int
    text: str
    logprob: float
    top: list[tuple[int, str, float]] = []


class Choice(Value):
    """One continuation. `tokens`: the new ids with the end token; `text`: without special tokens and stop string."""

    index: int
    text: str
    tokens: list[int]
    reason: str
    """stop, length, cancelled or grammar."""
    logprobs: list[TokenLogprob] | None = None


class Usage(Value):
    """What the request cost."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    new_tokens: int = 0
    accepted_tokens: int = 0
    device_ns: int = 0


class Timing(Value):
    """Nanoseconds: waiting in the queue, until the first token, in all."""

    queued: int = 0
    first: int = 0
    total: int = 0


class Label(Value):
    label: str
    score: float


class Labels(Value, tag="labels"):
    """Classification: labels, best first."""

    labels: list[Label]


class Span(Value):
    label: str
    score: float
    start: int
    end: int
    text: str


class Spans(Value, tag="spans"):
    """Token classification: character offsets into the input."""

    spans: list[Span]


class Embeddings(Value, tag="embeddings"):
    """One row per input; shape [rows, width], float32."""

    tensor: TensorOut
    truncated: list[bool] = []


class Scores(Value, tag="scores"):
    """Reranking: one score per document."""

    scores: list[float]


class Answer(Value, tag="answer"):
    """Extractive question answering."""

    text: str
    score: float
    start: int
    end: int


class Transcript(Value, tag="transcript"):
    """Speech recognition."""

    text: str
    segments: list[tuple[float, float, str]] = []


class TensorsOut(Value, tag="tensors"):
    """Named tensors of a model without a text front."""

    named: dict[str, TensorOut]


TaskResultValue = Labels | Spans | Embeddings | Scores | Answer | Transcript | TensorsOut


class Inference(Value):
    """The whole result of one inference."""

    id: str
    task: str
    model_version: str
    choices: list[Choice] = []
    result: TaskResultValue | None = None
    usage: Usage = field(default_factory=Usage)
    timing: Timing = field(default_factory=Timing)
    reasons: list[Reason] = []
    prompt_logprobs: list[TokenLogprob] | None = None

    @property
    def text(self) -> str:
        """The text of the first choice, or of an answer or transcript; empty when the task has no text."""
        if not self.choices and isinstance(self.result, Answer | Transcript):
            return self.result.text
        return self.choices[0].text if self.choices else ""

    @property
    def tokens(self) -> list[int]:
        """The new token ids of the first choice."""
        return self.choices[0].tokens if self.choices else []


class Chunk(Value):
    """A piece of a stream: whole characters only, whatever the tokenizer."""

    index: int = 0
    text: str = ""
    tokens: list[int] = []
    logprobs: list[TokenLogprob] | None = None


class Context(Value):
    """An open conversation with its cached state on the device."""

    handle: Handle
    id: str
    model: str
    tokens: int
    max_tokens: int
    parent: str = ""
