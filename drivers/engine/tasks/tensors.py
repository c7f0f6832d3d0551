"""Models without a front: named tensors in, named tensors out."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from llmos.syscalls.errors import BadArgument

from ...contract import Request, TensorView
from ..kinds import NUMBERS
from ..loader import Bundle
from ..memory import out_of_memory
from ..plugged import PluggedModule
from .base import BATCH_TOKENS, Job, Line, Outcome
from .options import Options

DTYPES: Mapping[str, torch.dtype] = {
    "float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16, "int64": torch.int64,
    "int32": torch.int32, "int8": torch.int8, "uint8": torch.uint8, "bool": torch.bool,
}  # fmt: skip
NAMES = {dtype: name for name, dtype in DTYPES.items()}
NUMBERS_PER_TOKEN = 256
"""A measure of the work."""

REFUSALS = (RuntimeError, TypeError, IndexError, KeyError, AttributeError, AssertionError)
"""What a module raises for tensors that do not fit it."""


class NamedTensors:
    """Named tensors through the model. Where the first dimension is the batch's, requests share one."""

    name: ClassVar[str] = "tensors"
    options: ClassVar[Mapping[str, str]] = {}
    batch_tokens = BATCH_TOKENS

    def __init__(self, bundle: Bundle) -> None:
        module = bundle.module
        plugged = isinstance(module, PluggedModule)
        self._dtype = bundle.about.dtype
        self._batched = module.config.architecture.batched if plugged else True
        self._accepted = inspect.signature((module.model if plugged else module).forward).parameters
        self._extra: Mapping[str, Any] = {} if plugged else {"return_dict": True}

    def prepare(self, request: Request) -> Job:
        Options(self.name, self.options, request.options)
        views = request.prompt.tensors
        if not views:
            want = f"named {NUMBERS}: {', '.join(self._accepted)}"
            raise BadArgument(f"the input must be {want}", name="input", got="none", want=want)
        inputs = {name: self._tensor(name, view) for name, view in views.items()}
        length = max(1, sum(value.numel() for value in inputs.values()) // NUMBERS_PER_TOKEN)
        rows = {value.shape[0] if value.ndim else 0 for value in inputs.values()}
        shape: object = tuple((name, value.dtype, value.shape[1:]) for name, value in sorted(inputs.items()))
        if not self._batched or len(rows) > 1 or rows == {0}:
            shape = object()
        return Job([Line(inputs, length, shape)], length, lambda outputs: Outcome(tensors=outputs[0]))

    def run(self, module: Any, lines: Sequence[Line]) -> Sequence[Mapping[str, TensorView]]:
        """The tensors that the model answers to each line. Raises ValueError for tensors that do not fit it."""
        names = lines[0].inputs
        batch = {name: torch.cat([line.inputs[name] for line in lines]) for name in names} if lines[1:] else names
        given = {name: value.to(module.device) for name, value in batch.items()}
        try:
            answer = dict(_named(module(**given, **self._extra)))
        except REFUSALS as error:
            if out_of_memory(error) is not None:
                raise
            raise ValueError(f"{type(error).__name__}: {error}") from error
        if not lines[1:]:
            return [{name: _view(value) for name, value in answer.items()}]
        rows = [len(next(iter(line.inputs.values()))) for line in lines]
        if any(value.ndim == 0 or value.shape[0] != sum(rows) for value in answer.values()):
            raise ValueError("the model's answer has another first dimension than its input")
        parts = {name: torch.split(value, rows) for name, value in answer.items()}
        return [{name: _view(value[at]) for name, value in parts.items()} for at in range(len(lines))]

    def _tensor(self, name: str, view: TensorView) -> Tensor:
        """A tensor of the model's own precision. Raises BadArgument for a name that the model does not know."""
        open_ended = any(each.kind is each.VAR_KEYWORD for each in self._accepted.values())
        if name not in self._accepted and not open_ended:
            want = ", ".join(self._accepted)
            raise BadArgument(f"the model takes no tensor {name!r}; it takes {want}", name="input", got=name, want=want)
        dtype = DTYPES[view.dtype]
        shape = tuple(view.shape)
        value = torch.frombuffer(bytearray(view.data), dtype=dtype) if len(view.data) else torch.empty(0, dtype=dtype)
        return value.reshape(shape).to(self._dtype) if dtype.is_floating_point else value.reshape(shape)


def _named(answer: Any, name: str = "output") -> Iterator[tuple[str, Tensor]]:
    """The tensors of an answer by name: of a mapping by its keys, of a list by their numbers."""
    if isinstance(answer, Tensor):
        yield name, answer
    elif isinstance(answer, Mapping):
        for key, value in answer.items():
            yield from _named(value, str(key))
    elif isinstance(answer, list | tuple):
        for number, value in enumerate(answer):
            yield from _named(value, f"{name}.{number}")


def _view(value: Tensor) -> TensorView:
    """A tensor as bytes; of a precision that has no name here, the next one that has."""
    value = value.detach().cpu().contiguous()
    if value.dtype not in NAMES:
        value = value.to(torch.float32 if value.is_floating_point() else torch.int64)
    data = value.flatten().view(torch.uint8).numpy().tobytes()
    return TensorView(NAMES[value.dtype], tuple(value.shape), memoryview(data))
