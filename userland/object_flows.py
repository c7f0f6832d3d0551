"""What can be asked of one opened object, each as one flow for both faces. `self` is a Model, Task, File, ..."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Unpack

from llmos.syscalls import calls
from llmos.syscalls.errors import BadHandle, LlmosError, PeerGone
from llmos.syscalls.spec import Call, Stream
from llmos.syscalls.types import (
    Chunk, Context, Done, EmbedOptions, Event, File, Freed, Inference, ModelInfo, ObjectInfo, Sampling, Task,
    TaskResult, TaskState, TunePlan, TuneRecipe,
)  # fmt: skip

from .flow import Flow, OnProgress, ask
from .held import Opened
from .inputs import InputLike, of_namespace, to_input
from .options import (
    DEFAULT_SAMPLING, CallOptions, InferOptions, SamplingLike, deadline_in, fill, sampling_of_model, split,
)  # fmt: skip

OfModel = Opened[Any, ModelInfo]
OfContext = Opened[Any, Context]
OfTask = Opened[Any, Task]
OfFile = Opened[Any, File]
AnyObject = Opened[Any, Any]

READ_AT_ONCE = 4 << 20
"""Bytes asked for per call when a file is read to its end."""


# ---- any object


def stat(self: AnyObject) -> Flow[ObjectInfo]:
    """The state of the object now."""
    return (yield from ask(calls.StatObject(handle=self.handle)))


def close(self: AnyObject) -> Flow[None]:
    """Give the object up. Closing twice is harmless, and so is closing what ended with its session."""
    handle = self.let_go()
    if handle is not None:
        try:
            yield from ask(calls.CloseHandle(handle=handle))
        except (PeerGone, BadHandle):
            return


def _control(
    self: AnyObject, action: str, on_progress: OnProgress | None = None, /, **options: Any
) -> Flow[ObjectInfo]:
    return (yield from ask(calls.ControlObject(handle=self.handle, action=action, options=options), on_progress))


# ---- models


def infer(
    self: OfModel,
    input: InputLike,
    *,
    task: str = "auto",
    context: OfContext | None = None,
    sampling: SamplingLike = None,
    options: Mapping[str, Any] | None = None,
    **fields: Unpack[InferOptions],
) -> Flow[Inference]:
    """Run one input and wait for the whole result.

    Args:
        input: text, a picture or sound (bytes, a `Path`, `Image(path="/files/x.png")`), a list of these, token ids,
            chat messages, tensors by name, or an `Input`.
        task: a Hugging Face pipeline id; auto is the model's own.
        context: a conversation to continue.
        sampling: a prepared `Sampling`, or "model" for the model's own generation settings.
        options: what the task takes beside its input, as in `{"candidate_labels": ["yes", "no"]}`.
        **fields: fields of `Sampling` (`max_tokens=40`), which override `sampling`; `timeout`, `priority`,
            `work_class`, `key`.
    """
    request = yield from _arguments(self, input, task, context, sampling, options, fields)
    return (yield from ask(calls.Infer(**request)))


def infer_stream(
    self: OfModel,
    input: InputLike,
    *,
    task: str = "auto",
    context: OfContext | None = None,
    sampling: SamplingLike = None,
    credit: int = 32,
    options: Mapping[str, Any] | None = None,
    **fields: Unpack[InferOptions],
) -> Flow[Call[Stream[Chunk, Inference]]]:
    """Run one input and iterate over the result as it is made. Arguments as for `infer`.

    Args:
        credit: chunks that may be under way before they are read.
    """
    request = yield from _arguments(self, input, task, context, sampling, options, fields)
    return calls.InferStream(**request, credit=credit)


def _arguments(
    self: OfModel,
    input: InputLike,
    task: str,
    context: OfContext | None,
    sampling: SamplingLike,
    options: Mapping[str, Any] | None,
    fields: Mapping[str, Any],
) -> Flow[dict[str, Any]]:
    common, chosen = split(fields)
    base = yield from _base_sampling(self, sampling)
    return {
        "model": self.handle,
        "input": (yield from of_namespace(to_input(input))),
        "task": task,
        "context": None if context is None else context.handle,
        "sampling": fill(base, chosen, "infer"),
        "options": dict(options or {}),
        **_common(common),
    }


def _common(common: Mapping[str, Any]) -> dict[str, Any]:
    given = dict(common)
    given["deadline"] = deadline_in(given.pop("timeout", None))
    return given


def _base_sampling(self: OfModel, sampling: SamplingLike) -> Flow[Sampling]:
    if sampling is None:
        return DEFAULT_SAMPLING
    if isinstance(sampling, Sampling):
        return sampling
    path = self.info.path.rstrip("/") + "/generation_config.json"
    try:
        opened = yield from ask(calls.OpenFile(path=path))
    except LlmosError:
        return DEFAULT_SAMPLING
    try:
        data = yield from ask(calls.ReadFile(file=opened.handle, offset=0, count=opened.bytes))
    finally:
        yield from ask(calls.CloseHandle(handle=opened.handle))
    assert isinstance(data.data, bytes)
    return sampling_of_model(json.loads(data.data))


def embed(
    self: OfModel, input: InputLike, *, options: EmbedOptions | None = None, **common: Unpack[CallOptions]
) -> Flow[Inference]:
    """Turn an input into a vector, or a list of texts into one each: `.result.tensor`."""
    content = yield from of_namespace(to_input(input))
    request = calls.Embed(
        model=self.handle, input=content, options=options or EmbedOptions(), **_common({**common})
    )
    return (yield from ask(request))


def open_context(self: OfModel, *, parent: OfContext | None = None, max_tokens: int = 0) -> Flow[Context]:
    """Open a conversation whose cached state stays on the device; with `parent`, a copy of another one."""
    handle = None if parent is None else parent.handle
    return (yield from ask(calls.OpenContext(model=self.handle, parent=handle, max_tokens=max_tokens)))


def tune(
    self: OfModel, recipe: TuneRecipe | Mapping[str, Any], data: str, out: str, **common: Unpack[CallOptions]
) -> Flow[Task]:
    """Adapt the model on its device, beside the requests that it answers; the task goes on by itself.

    Args:
        recipe: a `TuneRecipe`, or its fields as a map: `{"method": "lora", "epochs": 3}`.
        data: path of the training data in the namespace.
        out: path of the result, such as `/models/mine`.
        **common: `work_class="batch"` puts it before background work; `timeout`, `priority`, `key`.
    """
    return (yield from ask(calls.Tune(
        model=self.handle, recipe=_recipe(recipe), data=data, out=out, **_common({**common})
    )))  # fmt: skip


def plan_tune(self: OfModel, recipe: TuneRecipe | Mapping[str, Any], data: str, out: str) -> Flow[TunePlan]:
    """What `tune` would take, without beginning it. Arguments as for `tune`."""
    call = calls.Tune(model=self.handle, recipe=_recipe(recipe), data=data, out=out, dry_run=True)
    planned = yield from ask(call)
    assert planned.plan is not None
    return planned.plan


def _recipe(given: TuneRecipe | Mapping[str, Any]) -> TuneRecipe:
    return fill(TuneRecipe(method=""), given, "tune") if isinstance(given, Mapping) else given


def unload(self: OfModel, *, force: bool = False) -> Flow[Freed]:
    """Take the model off its device; with `force`, end its running requests too."""
    freed = yield from ask(calls.UnloadModel(model=self.handle, force=force))
    self.closed = True
    return freed


def sleep(self: OfModel) -> Flow[ObjectInfo]:
    """Move the weights out of device memory, ready to wake."""
    return (yield from _control(self, "sleep"))


def wake(self: OfModel, *, on_progress: OnProgress | None = None) -> Flow[ObjectInfo]:
    """Bring a sleeping model back; `on_progress` is called with each `Progress`."""
    return (yield from _control(self, "wake", on_progress))


def pin(self: OfModel) -> Flow[ObjectInfo]:
    """Never evict the model."""
    return (yield from _control(self, "pin"))


def unpin(self: OfModel) -> Flow[ObjectInfo]:
    """Let the model be evicted again."""
    return (yield from _control(self, "unpin"))


def keep_alive(self: OfModel, seconds: float) -> Flow[ObjectInfo]:
    """How long the model stays awake without use; -1 is for ever."""
    return (yield from _control(self, "keep_alive", seconds=float(seconds)))


def swap(self: OfModel, to: str, *, on_progress: OnProgress | None = None) -> Flow[ObjectInfo]:
    """Exchange the model for another of its versions while it serves; `on_progress` is called with each `Progress`."""
    return (yield from _control(self, "swap", on_progress, to=to))


def drop_adapter(self: OfModel, name: str) -> Flow[ObjectInfo]:
    """Take an adapter off the model."""
    return (yield from _control(self, "adapter_drop", name=name))


# ---- conversations, tasks


def drop(self: OfContext) -> Flow[ObjectInfo]:
    """Free the cached state of the conversation."""
    return (yield from _control(self, "drop"))


def wait(self: OfTask, timeout: float | None = None) -> Flow[TaskResult]:
    """Wait until the task has ended.

    Raises:
        TimedOut: it had not within `timeout` seconds.
    """
    return (yield from ask(calls.WaitTask(task=self.handle, deadline=deadline_in(timeout))))


def cancel(self: OfTask, grace: float = 2.0) -> Flow[TaskState]:
    """End the task; it has `grace` seconds to end by itself."""
    return (yield from ask(calls.CancelTask(task=self.handle, grace_s=grace)))


def progress(self: OfTask) -> Flow[dict[str, Any]]:
    """How far the task is: `done` of `total` in `unit`, `stage`, and of tuning `loss`, `tokens_per_s`, `left_s`."""
    return dict((yield from stat(self)).fields.get("progress", {}))


def events(self: OfTask, *, credit: int = 64) -> Flow[Call[Stream[Event, Done]]]:
    """What happens to the task, until the stream is closed."""
    yield from ()
    return calls.WatchEvents(system=self.client.welcome.system, kinds=["task"], about=self.info.id, credit=credit)


def checkpoint(self: OfTask) -> Flow[ObjectInfo]:
    """Have a task that tunes write a checkpoint soon."""
    return (yield from _control(self, "checkpoint"))


def pause(self: OfTask) -> Flow[ObjectInfo]:
    """Pause the task."""
    return (yield from _control(self, "pause"))


def resume(self: OfTask) -> Flow[ObjectInfo]:
    """Let a paused task go on."""
    return (yield from _control(self, "resume"))


def set_priority(self: OfTask, value: int) -> Flow[ObjectInfo]:
    """How early the task runs; higher is earlier."""
    return (yield from _control(self, "priority", nice=-value))


# ---- files


def read_at(self: OfFile, offset: int, count: int) -> Flow[bytes]:
    """Up to `count` bytes at `offset`; empty at the end."""
    data = yield from ask(calls.ReadFile(file=self.handle, offset=offset, count=count))
    assert isinstance(data.data, bytes)
    return data.data


def write_at(self: OfFile, offset: int, data: bytes) -> Flow[int]:
    """Write bytes at `offset`; the number written."""
    return (yield from ask(calls.WriteFile(file=self.handle, offset=offset, data=data))).count


def read(self: Any, count: int = -1) -> Flow[bytes]:
    """The next `count` bytes, or all that are left; empty at the end."""
    whole = bytearray()
    while count < 0 or len(whole) < count:
        wanted = READ_AT_ONCE if count < 0 else min(READ_AT_ONCE, count - len(whole))
        part = yield from read_at(self, self.position, wanted)
        if not part:
            break
        whole += part
        self.position += len(part)
    return bytes(whole)


def write(self: Any, data: bytes) -> Flow[int]:
    """Write the bytes at the position, which moves on; the number written."""
    written = yield from write_at(self, self.position, data)
    self.position += written
    return written
