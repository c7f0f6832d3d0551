"""Every type that travels in a call, a result or an event."""

from .advice import Advice, Alert
from .authority import ALL_RIGHTS, Handle, Kind, Right, Rights, WorkClass
from .common import (
    Argument, BufferOut, BufferRef, Bytes, BytesOut, Done, Event, Metric, Number, Reason, Record, Tensor, TensorOut,
    Value,
)  # fmt: skip
from .inputs import Audio, Chat, Image, Input, Parts, Table, Tensors, Text, Tokens, Video
from .models import (
    Eviction, Freed, LedgerRow, LoadOptions, ModelInfo, Plan, Quant, TransformRecipe, TunePlan, TuneRecipe,
)  # fmt: skip
from .objects import (
    Buffer, Data, Entry, File, Grant, GrantTo, Hit, Lease, Limits, LimitsOut, Mount, MountTo, NewHandle, ObjectInfo,
    Revoked, Task, TaskResult, TaskState, Welcome, WireLimits, Written,
)  # fmt: skip
from .results import (
    Answer, Choice, Chunk, Context, Embeddings, Inference, Label, Labels, Scores, Span, Spans, TaskResultValue,
    TensorsOut, Timing, TokenLogprob, Transcript, Usage,
)  # fmt: skip
from .sampling import EmbedOptions, Grammar, Sampling, Speculative

__all__ = [
    "ALL_RIGHTS", "Advice", "Alert", "Answer", "Argument", "Audio", "Buffer", "BufferOut", "BufferRef", "Bytes",
    "BytesOut", "Chat", "Choice", "Chunk", "Context", "Data", "Done", "EmbedOptions", "Embeddings", "Entry", "Event",
    "Eviction", "File", "Freed", "Grammar", "Grant", "GrantTo", "Handle", "Hit", "Image", "Inference", "Input", "Kind",
    "Label", "Labels", "Lease", "LedgerRow", "Limits", "LimitsOut", "LoadOptions", "Metric", "ModelInfo", "Mount",
    "MountTo", "NewHandle", "Number", "ObjectInfo", "Parts", "Plan", "Quant", "Reason", "Record", "Revoked", "Right",
    "Rights", "Sampling", "Scores", "Span", "Spans", "Speculative", "Table", "Task", "TaskResult", "TaskResultValue",
    "TaskState", "Tensor", "TensorOut", "Tensors", "TensorsOut", "Text", "Timing", "TokenLogprob", "Tokens",
    "Transcript", "TransformRecipe", "TunePlan", "TuneRecipe", "Usage", "Value", "Video", "Welcome", "WireLimits",
    "WorkClass", "Written",
]  # fmt: skip
