"""Run models: one task, one call, whatever the model."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta

from ..errors import (
    BadModel, BadState, Busy, DeviceFault, DriverFailed, NoDeviceMemory, NotFound, NotSupported, PeerGone, Unavailable,
)  # fmt: skip
from ..spec import Call, Stream
from ..types import Chunk, Context, EmbedOptions, Handle, Inference, Input, Kind, Right, Sampling

FAILURES = (
    Busy, Unavailable, PeerGone, DriverFailed, DeviceFault, NoDeviceMemory, BadState, NotFound, NotSupported, BadModel,
)  # fmt: skip


class Infer(Call[Inference], name="infer", errors=FAILURES):
    """Run one input through a loaded model and wait for the whole result."""

    model: Annotated[Handle, Kind.MODEL, Right.RUN, "the model or adapter"]
    input: Annotated[Input, "text, token ids, chat, media parts or tensors"]
    task: Annotated[str, "a Hugging Face pipeline id; auto is the model's own"] = "auto"
    sampling: Annotated[Sampling, "how tokens are chosen"] = Sampling()
    context: Annotated[Handle | None, Kind.CONTEXT, Right.WRITE, "a conversation to continue"] = None
    options: Annotated[dict[str, Any], "what the task takes beside its input, such as candidate_labels or top_k"] = {}


class InferStream(Call[Stream[Chunk, Inference]], name="infer_stream", errors=FAILURES):
    """Run one input and receive the result piece by piece; the end carries the whole `Inference`."""

    model: Annotated[Handle, Kind.MODEL, Right.RUN, "the model or adapter"]
    input: Annotated[Input, "text, token ids, chat, media parts or tensors"]
    task: Annotated[str, "a Hugging Face pipeline id; auto is the model's own"] = "auto"
    sampling: Annotated[Sampling, "how tokens are chosen"] = Sampling()
    context: Annotated[Handle | None, Kind.CONTEXT, Right.WRITE, "a conversation to continue"] = None
    options: Annotated[dict[str, Any], "what the task takes beside its input, such as candidate_labels or top_k"] = {}
    credit: Annotated[int, Meta(ge=1, le=100_000), "chunks that may be under way before the reader grants more"] = 32


class Embed(Call[Inference], name="embed", errors=FAILURES):
    """Turn an input into a vector: the task `feature-extraction`."""

    model: Annotated[Handle, Kind.MODEL, Right.RUN, "the model"]
    input: Annotated[Input, "text, token ids or chat"]
    options: Annotated[EmbedOptions, "pooling, normalisation, truncation"] = EmbedOptions()


class OpenContext(Call[Context], name="open_context", errors=FAILURES):
    """Open a conversation whose cached state stays on the device; with `parent`, a copy of another one."""

    model: Annotated[Handle, Kind.MODEL, Right.CREATE, "the model"]
    parent: Annotated[Handle | None, Kind.CONTEXT, Right.READ, "the conversation to start from"] = None
    max_tokens: Annotated[int, Meta(ge=0), "room to plan for; 0 is the model's context"] = 0
