"""Turns messages of the kernel into the plain classes a driver sees, and back."""

from __future__ import annotations

import math
import sys
from array import array
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import fields
from operator import attrgetter
from pathlib import Path

import msgspec

from llmos.syscalls.driver import BufferFile, DeviceFacts, Loaded, LocalFile, Located, Overrun, Work
from llmos.syscalls.errors import BadArgument, NotSupported, TooLarge
from llmos.syscalls.types import (
    Answer, Audio, BufferRef, Bytes, Chat, Choice, Chunk, Embeddings, Entry, Hit, Image, Inference, Label, Labels,
    LedgerRow, LoadOptions, Reason, Sampling, Scores, Span, Spans, Table, TaskResultValue, Tensor, TensorOut, Tensors,
    TensorsOut, Text, TokenLogprob, Tokens, Transcript, Usage, Video,
)  # fmt: skip
from llmos.syscalls.wire import LIMITS

from . import contract
from .buffers import Buffers

_SAMPLING_FIELDS = tuple(f.name for f in fields(contract.SamplingParams))
_sampling_values = attrgetter(*_SAMPLING_FIELDS)
_DTYPE_BYTES = {
    "float32": 4, "float16": 2, "bfloat16": 2, "int64": 8, "int32": 4, "int8": 1, "uint8": 1, "bool": 1,
}  # fmt: skip

# ---- to the driver


def to_source(located: Located) -> contract.ModelSource:
    files = [contract.SourceFile(f.name, Path(f.path), f.bytes, f.offset) for f in located.files]
    draft = None if located.draft is None else to_source(located.draft)
    return contract.ModelSource(located.path, located.version, files, located.manifest, draft)


def to_settings(options: LoadOptions) -> contract.LoadSettings:
    quant = None if options.quant is None else msgspec.structs.asdict(options.quant)
    return contract.LoadSettings(
        options.dtype, options.kv_dtype, options.max_context, quant, options.draft, options.rung, options.prefix_cache
    )


def to_sampling(sampling: Sampling) -> contract.SamplingParams:
    if sampling.grammar is None and sampling.speculative is None:
        return contract.SamplingParams(*_sampling_values(sampling))
    values = dict(zip(_SAMPLING_FIELDS, _sampling_values(sampling), strict=True))
    if sampling.grammar is not None:
        set_fields = msgspec.structs.asdict(sampling.grammar)
        values["grammar"] = {name: value for name, value in set_fields.items() if value is not None}
    if sampling.speculative is not None:
        values["speculative"] = msgspec.structs.asdict(sampling.speculative)
    return contract.SamplingParams(**values)


def to_request(work: Work, model: str, buffers: Buffers, *, takes: Collection[str]) -> contract.Request:
    """The request a device sees; `model` is the device's own id of it, `takes` names what it accepts beside text:
    `tensors`, `parts`.

    Raises:
        NotSupported: an input of a kind the device does not take.
        BadArgument: a tensor whose bytes are not those of its shape, a part without content, or a buffer that is not
            there.
    """
    embed = None
    if work.embed is not None:
        embed = contract.EmbedSettings(work.embed.pooling, work.embed.normalize, work.embed.max_tokens)
    return contract.Request(
        id=work.id,
        model=model,
        prompt=_prompt(work, buffers, takes),
        task=work.task,
        sampling=to_sampling(work.sampling),
        embed=embed,
        context=work.context,
        stream=work.stream,
        tenant=work.tenant,
        options=work.options,
    )


def _prompt(work: Work, buffers: Buffers, takes: Collection[str]) -> contract.Prompt:
    given = work.input
    if isinstance(given, Text):
        return contract.Prompt(text=given.text)
    if isinstance(given, Tokens):
        return contract.Prompt(ids=given.ids)
    if isinstance(given, Chat):
        return contract.Prompt(messages=given.messages, tools=given.tools, template_options=given.template_options)
    if isinstance(given, Tensors):
        if "tensors" not in takes:
            raise NotSupported(
                "this device takes text, tokens or chat messages, not tensors", why="the driver has no tensor inputs"
            )
        views = {name: _tensor(name, tensor, work.buffers, buffers) for name, tensor in given.named.items()}
        return contract.Prompt(tensors=views)
    if "parts" not in takes:
        raise NotSupported(
            "this device takes text, tokens or chat messages, not parts such as images and sounds",
            why="the driver has no media inputs",
        )
    return contract.Prompt(parts=[_part(part, work, buffers) for part in given.parts])


def _part(part: Text | Image | Audio | Video | Table, work: Work, buffers: Buffers) -> contract.Part:
    if isinstance(part, Text):
        return part.text
    if isinstance(part, Table):
        return contract.TablePart(part.columns, part.rows)
    kind = type(part).__name__.lower()
    if part.path:
        want = "bytes or a buffer: a program's client library reads the path for it"
        said = f"the {kind} part has the path {part.path}, expected {want}"
        raise BadArgument(said, name="path", got=part.path, want=want)
    data = _bytes(f"the {kind} part", part.data, work.buffers, buffers)
    if not len(data):
        raise BadArgument(f"the {kind} part is empty; give its bytes", name="data", want="encoded bytes")
    return contract.MediaPart(kind, data)


def _tensor(name: str, tensor: Tensor, files: Mapping[str, BufferFile], buffers: Buffers) -> contract.TensorView:
    if tensor.dtype not in _DTYPE_BYTES:
        known = ", ".join(_DTYPE_BYTES)
        raise BadArgument(
            f"tensor {name}: dtype {tensor.dtype!r} is unknown; use {known}", name="dtype", got=tensor.dtype, want=known
        )
    data = _bytes(f"tensor {name}", tensor.data, files, buffers)
    wanted = _DTYPE_BYTES[tensor.dtype] * math.prod(tensor.shape)
    if len(data) != wanted:
        raise BadArgument(
            f"tensor {name}: {tensor.dtype} of shape {tensor.shape} has {wanted} bytes, {len(data)} were given",
            name=name,
            got=str(len(data)),
            want=str(wanted),
        )
    return contract.TensorView(tensor.dtype, tuple(tensor.shape), data)


def _bytes(what: str, data: Bytes, files: Mapping[str, BufferFile], buffers: Buffers) -> memoryview:
    if not isinstance(data, BufferRef):
        return memoryview(data)
    file = files.get(str(data.buffer))
    if file is None:
        raise BadArgument(f"{what}: buffer {data.buffer} did not come with the request", name="buffer")
    return buffers.view(file).slice(data.offset, data.length)


# ---- from the driver


def from_facts(facts: contract.Facts, memory_limit: int = 0) -> DeviceFacts:
    """`memory_limit`, where it is set, is all that the kernel lets this host use."""
    return DeviceFacts(
        name=facts.name,
        kind=facts.kind,
        memory_bytes=min(facts.memory_bytes, memory_limit) if memory_limit else facts.memory_bytes,
        foreign_bytes=facts.foreign_bytes,
        description=facts.description,
        features=dict(facts.features),
        pool=facts.pool,
        unit=facts.unit,
    )


def from_rows(device: str, rows: Iterable[contract.Row], owners: Mapping[str, str]) -> list[LedgerRow]:
    """Rows of the ledger; `owners` gives the kernel's ids of models that the device knows by another."""
    return [
        LedgerRow(
            device=row.device or device,
            what=row.what,
            owner=owners.get(row.owner, row.owner),
            predicted=row.predicted,
            allocator=row.allocator,
            driver=row.driver,
        )
        for row in rows
    ]


def from_loaded(device: str, model: contract.LoadedModel, owners: Mapping[str, str]) -> Loaded:
    return Loaded(
        architecture=model.architecture,
        tasks=list(model.tasks),
        context=model.context,
        parameters=model.parameters,
        rows=from_rows(device, model.rows, owners),
        rung=model.rung,
        rung_reasons=[Reason(code="rung", text=text) for text in model.rung_reasons],
        chat=model.chat,
        slots=model.slots,
        contexts=list(model.contexts),
    )


def from_overrun(found: contract.Overrun, model: str, request: str) -> Overrun:
    return Overrun(
        model=model, what=found.what, predicted=found.predicted, measured=found.measured, request=request
    )


def from_chunk(event: contract.ChunkEvent) -> Chunk:
    return Chunk(index=event.index, text=event.text, tokens=list(event.tokens), logprobs=_logprobs(event.logprobs))


def from_done(event: contract.DoneEvent, model_version: str) -> Inference:
    """The wire's result of a finished request.

    Raises:
        TooLarge: embeddings or tensors of more bytes than a message may carry.
    """
    _check_size(event)
    result: TaskResultValue | None = None
    if event.embeddings is not None:
        result = Embeddings(tensor=_float_rows(event.embeddings), truncated=list(event.truncated))
    elif event.tensors is not None:
        result = TensorsOut(named={name: _from_tensor(view) for name, view in event.tensors.items()})
    elif event.result is not None:
        result = _from_result(event.result)
    choices = [
        Choice(index=c.index, text=c.text, tokens=list(c.tokens), reason=c.reason, logprobs=_logprobs(c.logprobs))
        for c in event.choices
    ]
    usage = Usage(
        prompt_tokens=event.prompt_tokens,
        cached_tokens=event.cached_tokens,
        new_tokens=event.new_tokens,
        accepted_tokens=event.accepted_tokens,
        device_ns=event.device_ns,
    )
    return Inference(
        id=event.request, task=event.task, model_version=model_version, choices=choices, result=result, usage=usage,
        prompt_logprobs=_logprobs(event.prompt_logprobs),
    )


def _from_result(result: contract.TaskResult) -> TaskResultValue:
    if isinstance(result, contract.LabelsResult):
        return Labels(labels=[Label(label=each.label, score=each.score) for each in result.labels])
    if isinstance(result, contract.SpansResult):
        return Spans(spans=[Span(**vars(each)) for each in result.spans])
    if isinstance(result, contract.ScoresResult):
        return Scores(scores=list(result.scores))
    if isinstance(result, contract.AnswerResult):
        return Answer(**vars(result))
    return Transcript(text=result.text, segments=list(result.segments))


def from_info(info: contract.FileInfo) -> Entry:
    return Entry(
        path=info.path,
        kind=info.kind,
        bytes=info.bytes,
        version=info.version,
        mtime=info.mtime,
        fields=dict(info.fields),
    )


def from_found(found: contract.Found) -> Hit:
    return Hit(
        path=found.path,
        score=found.score,
        start=found.start,
        end=found.end,
        fields=dict(found.fields),
        reason=found.reason,
    )


def from_source(source: contract.ModelSource, token: str) -> Located:
    sums = {str(f.get("name")): str(f.get("sha256", "")) for f in source.manifest.get("files", ())}
    files = [
        LocalFile(name=f.name, path=str(f.path), bytes=f.bytes, offset=f.offset, sha256=sums.get(f.name, ""))
        for f in source.files
    ]
    return Located(path=source.path, version=source.version, files=files, manifest=dict(source.manifest), token=token)


def _logprobs(given: Sequence[contract.TokenLogprob] | None) -> list[TokenLogprob] | None:
    if given is None:
        return None
    return [TokenLogprob(token=t.token, text=t.text, logprob=t.logprob, top=list(t.top)) for t in given]


def _float_rows(rows: Sequence[Sequence[float]]) -> TensorOut:
    values = array("f")
    for row in rows:
        values.extend(row)
    if sys.byteorder == "big":
        values.byteswap()
    return TensorOut(dtype="float32", shape=[len(rows), len(rows[0]) if rows else 0], data=values.tobytes())


def _from_tensor(view: contract.TensorView) -> TensorOut:
    return TensorOut(dtype=view.dtype, shape=list(view.shape), data=bytes(view.data))


def _check_size(event: contract.DoneEvent) -> None:
    """A host cannot ask for a shared buffer, so what it answers travels in one message."""
    rows = sum(len(row) for row in event.embeddings or ())
    size = 4 * rows + sum(view.data.nbytes for view in (event.tensors or {}).values())
    if size > LIMITS.message_bytes:
        text = f"the result has {size} bytes, an answer carries at most {LIMITS.message_bytes}; ask for less at a time"
        raise TooLarge(text, limit=LIMITS.message_bytes, got=size)
