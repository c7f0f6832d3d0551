"""What a null model computes: UTF-8 bytes as tokens, echoes as answers, waves as embeddings, tensors as they are."""

from __future__ import annotations

import codecs
import math
import time
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from llmos.drivers.contract import (
    ChoiceResult, ChunkEvent, EmbedSettings, Prompt, Request, SamplingParams, TensorView, TokenLogprob,
)  # fmt: skip
from llmos.syscalls.errors import BadArgument, NotSupported

from .null_faults import Fault

END = 256
WIDTH = 64
ECHO_BYTES = 128 << 10
TASKS = ("text-generation", "feature-extraction")
TENSOR_TASKS = ("echo", "copy", "touch")
PAGE = 4096
SAMPLING = ("n", "best_of", "beams", "logprobs", "speculative")
"""What it offers beyond the usual: of one certain answer there are as many as one likes."""


def task_of(request: Request) -> str:
    """Raises NotSupported for a task the null device does not do, BadArgument for options: it knows none."""
    request.refuse_options()
    tensors = request.prompt.tensors is not None
    known = TENSOR_TASKS if tensors else TASKS
    default = TASKS[1] if request.embed is not None and not tensors else known[0]
    task = default if request.task == "auto" else request.task
    if task not in known:
        raise NotSupported(
            f"task {task!r} is unknown to the null device; it does {', '.join(known)}", why="no such task"
        )
    return task


def prompt_text(prompt: Prompt) -> str:
    """The text of a prompt: of a chat, its last message; of token ids, nothing."""
    if prompt.messages is None:
        return prompt.text or ""
    if not prompt.messages:
        raise BadArgument("the chat has no messages", name="messages", got="[]", want="at least one message")
    content = prompt.messages[-1].get("content")
    if not isinstance(content, str):
        raise BadArgument("the last message has no text", name="messages", got=repr(content), want="content: text")
    return content


def prompt_ids(prompt: Prompt, text: str) -> list[int]:
    """Token ids of a prompt whose text is `text`.

    Raises:
        BadArgument: an id that is no byte and not the end.
    """
    if prompt.ids is None:
        return list(text.encode())
    wrong = [token for token in prompt.ids if not 0 <= token <= END]
    if wrong:
        raise BadArgument(f"token {wrong[0]} is outside the vocabulary of {END + 1}", name="ids", got=str(wrong[0]))
    return list(prompt.ids)


class Echo:
    """The answer to one prompt, token by token. The choices of a request are equal, so one is computed.

    Args:
        ids: the prompt.
        room: tokens that still fit behind it.
        stream: whether to say it in pieces.
    """

    def __init__(self, ids: Sequence[int], sampling: SamplingParams, room: int, *, stream: bool) -> None:
        self._stream = stream
        self._source = [token for token in ids if token != END]
        self._sampling = sampling
        self._limit = min(sampling.max_tokens, room)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._tokens: list[int] = []
        self._text = ""
        self._said = 0
        self._unsaid: list[int] = []
        self.reason = "" if self._limit else "length"

    @property
    def done(self) -> bool:
        return bool(self.reason)

    def advance(self, request: str) -> list[ChunkEvent]:
        """One more token."""
        token = self._next()
        self._tokens.append(token)
        self._unsaid.append(token)
        sampling = self._sampling
        if token in sampling.stop_token_ids or (token == END and not sampling.ignore_eos):
            self.reason = "stop"
        else:
            self._text += self._decoder.decode(bytes([token]) if token != END else b"")
        cut = min((at for stop in sampling.stop if (at := self._text.find(stop)) >= 0), default=-1)
        if cut >= 0:
            self._text, self.reason = self._text[:cut], "stop"
        elif not self.reason and len(self._tokens) >= self._limit:
            self.reason = "length"
        if self.reason and cut < 0:
            self._text += self._decoder.decode(b"", final=True)
        return self._say(request)

    def cancel(self, request: str) -> list[ChunkEvent]:
        """End here."""
        if not self.reason:
            self._text += self._decoder.decode(b"", final=True)
            self.reason = "cancelled"
        return self._say(request)

    def choices(self) -> list[ChoiceResult]:
        """The finished answer, `n` times."""
        logprobs = None if self._sampling.logprobs is None else self._logprobs(self._tokens)
        return [
            ChoiceResult(index, self._text, list(self._tokens), self.reason, logprobs)
            for index in range(self._sampling.n)
        ]

    def _next(self) -> int:
        at = len(self._tokens)
        if self._sampling.ignore_eos and self._source:
            return self._source[at % len(self._source)]
        return self._source[at] if at < len(self._source) else END

    def _say(self, request: str) -> list[ChunkEvent]:
        """What may be said: not the beginning of a stop text, which may still be cut."""
        if not self._stream:
            return []
        end = len(self._text) if self.reason else len(self._text) - self._held_back()
        if end <= self._said and not (self.reason and self._unsaid):
            return []
        text, self._said = self._text[self._said : end], end
        tokens, self._unsaid = self._unsaid, []
        logprobs = None if self._sampling.logprobs is None else self._logprobs(tokens)
        return [ChunkEvent(request, text, tokens, index, logprobs) for index in range(self._sampling.n)]

    def _held_back(self) -> int:
        longest = 0
        for stop in self._sampling.stop:
            for size in range(min(len(stop) - 1, len(self._text)), longest, -1):
                if self._text.endswith(stop[:size]):
                    longest = size
                    break
        return longest

    def _logprobs(self, tokens: Sequence[int]) -> list[TokenLogprob]:
        texts = ["" if token == END else bytes([token]).decode("utf-8", "replace") for token in tokens]
        alternatives = bool(self._sampling.logprobs)
        return [
            TokenLogprob(token, text, 0.0, [(token, text, 0.0)] if alternatives else ())
            for token, text in zip(tokens, texts, strict=True)
        ]


@dataclass
class NullModel:
    bytes: int
    context: int
    """Tokens that a prompt and its answer may have; 0 where the model states no limit."""
    slots: int
    faults: Sequence[Fault]
    base: str = ""
    awake: bool = True


@dataclass
class NullContext:
    model: str
    max_tokens: int
    ids: list[int] = field(default_factory=list)


@dataclass
class NullJob:
    """A request that was accepted."""

    request: Request
    task: str
    faults: list[Fault]
    ids: list[int]
    cached: int
    echo: Echo | None
    began: float
    cancelled: bool = False
    steps: int = 0
    device_ns: int = 0

    @property
    def waits(self) -> bool:
        """Told to answer late: nothing happens before then, not even a cancel."""
        late = max((fault.milliseconds for fault in self.faults if fault.what == "late"), default=0.0)
        return time.monotonic() < self.began + late / 1000


def check_embedding(settings: EmbedSettings) -> None:
    """Raises BadArgument for a pooling that does not exist."""
    if settings.pooling not in ("mean", "cls", "last"):
        raise BadArgument(
            f"pooling is {settings.pooling!r}; expected mean, cls or last", name="pooling", got=settings.pooling
        )


def embed(ids: Sequence[int], settings: EmbedSettings) -> tuple[list[list[float]], list[bool]]:
    """One row for one input, and whether it was cut. Token vectors are waves, different for each token."""
    kept = list(ids)[: settings.max_tokens] or [END]
    pooled = {"mean": kept, "cls": kept[:1], "last": kept[-1:]}[settings.pooling]
    row = [sum(math.cos((token + 1) * (column + 1) * 0.1) for token in pooled) / len(pooled) for column in range(WIDTH)]
    if settings.normalize:
        norm = math.sqrt(sum(value * value for value in row)) or 1.0
        row = [value / norm for value in row]
    return [row], [len(kept) < len(ids)]


class TensorMover:
    """Takes tensors into the device's memory, which is kept and reused as a real device would."""

    def __init__(self) -> None:
        self._memory = bytearray()

    def run(self, task: str, tensors: Mapping[str, TensorView]) -> Mapping[str, TensorView]:
        """`copy` answers with sizes; `touch` with the sum of one byte of each page, read where it lies; `echo` with the
        tensors that are small enough, and a CRC-32 of each."""
        out: dict[str, TensorView] = {}
        for name, tensor in tensors.items():
            size = tensor.data.nbytes
            if task == "copy":
                if len(self._memory) < size:
                    self._memory = bytearray(size)
                memoryview(self._memory)[:size] = tensor.data
                out[f"{name}.bytes"] = _number(size)
                continue
            if task == "touch":
                out[f"{name}.sum"] = _number(sum(tensor.data.cast("B")[::PAGE]))
                continue
            if size <= ECHO_BYTES:
                out[name] = tensor
            out[f"{name}.crc32"] = _number(zlib.crc32(tensor.data))
        return out


def _number(value: int) -> TensorView:
    return TensorView("int64", (1,), memoryview(value.to_bytes(8, "little")))
