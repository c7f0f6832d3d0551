"""A GPU without numbers: what runs inside `FakeCuda` computes shapes and devices alone, on a machine that has none.

What raises on a GPU, or waits for it, raises here: tensors of two devices in one op, and numbers of the device that the
host asks for (`item`, `tolist`, an `if` on a tensor). A copy between the devices is fine on both and is written down.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from types import EllipsisType, TracebackType
from typing import Any

import torch
import transformers
from tiny_models import config_of
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from llmos.drivers.ops.reference import register_reference
from llmos.drivers.ops.table import OpTable

DEVICE = torch.device("cuda", 0)
aten = torch.ops.aten
GUARDED: Mapping[Any, Any] = {
    Tensor.copy_: aten.copy_, Tensor.nonzero: aten.nonzero, torch.nonzero: aten.nonzero,
    Tensor.contiguous: aten.contiguous, Tensor.__invert__: aten.bitwise_not,
}  # fmt: skip


@dataclass(frozen=True)
class Crossing:
    """A copy between devices, by their kinds."""

    source: str
    target: str
    shape: tuple[int, ...]


class FakeCuda(AbstractContextManager["FakeCuda"]):
    """`with FakeCuda() as gpu:` tensors are fake; `gpu.crossings` are the copies between devices so far."""

    def __init__(self) -> None:
        self.crossings: list[Crossing] = []
        self._modes = ExitStack()

    def __enter__(self) -> FakeCuda:
        self._modes.enter_context(FakeTensorMode(allow_non_fake_inputs=False))
        self._modes.enter_context(_Copies(self.crossings))
        self._modes.enter_context(Guardless())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._modes.close()

    def to_host(self) -> list[Crossing]:
        """Copies for which the host waits, or which it must wait for later."""
        return [each for each in self.crossings if each.target == "cpu"]


def fake_module(name: str, dtype: torch.dtype = torch.bfloat16, **changes: Any) -> Any:
    """A tiny causal model of an architecture whose weights are fake, on the GPU. Inside `FakeCuda` only."""
    with unset_fake_temporarily(), torch.device("meta"):
        module = transformers.AutoModelForCausalLM.from_config(config_of(name, **changes), dtype=dtype)
    return on_gpu(module.eval())


def on_gpu(module: Any) -> Any:
    """Give a module of the meta device fake weights on the GPU; what was shared stays shared."""
    made: dict[int, Any] = {}
    for part in module.modules():
        for name, weight in [*part._parameters.items()]:
            if weight is not None:
                fresh = torch.empty(weight.shape, dtype=weight.dtype, device=DEVICE)
                part._parameters[name] = made.setdefault(id(weight), torch.nn.Parameter(fresh, requires_grad=False))
        for name, buffer in [*part._buffers.items()]:
            if buffer is not None:
                part._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype, device=DEVICE)
    return module


def shaped_ops(replaced: Mapping[str, Callable[..., Any]] | None = None) -> OpTable:
    """The references, but attention that answers a shape alone: the reference reads lengths on the host."""
    table = OpTable()
    register_reference(table)
    for op, call in {"paged_attention": shaped_attention, **(replaced or {})}.items():
        table.register(op, "shaped", call, lambda spec: (True, ""))
    return table


def shaped_attention(
    q: Tensor, k_pages: Tensor, v_pages: Tensor, page_table: Tensor, starts: Tensor, lengths: Tensor, **options: Any
) -> Tensor:
    """[T, Hq, Dv] of `paged_attention`; refuses tensors that are not on the GPU."""
    given = (q, k_pages, v_pages, page_table, starts, lengths, *(x for x in options.values() if isinstance(x, Tensor)))
    assert {tensor.device for tensor in given} == {DEVICE}, [tensor.device for tensor in given]
    return q.new_empty(q.shape[0], q.shape[1], v_pages.shape[-1])


class _Copies(TorchDispatchMode):
    """Writes down copies between devices."""

    def __init__(self, crossings: list[Crossing]) -> None:
        super().__init__()
        self._crossings = crossings

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        answer = func(*args, **(kwargs or {}))
        if func.overloadpacket in (aten._to_copy, aten.copy_):
            source, target = (args[0], answer) if func.overloadpacket is aten._to_copy else (args[1], args[0])
            if isinstance(source, Tensor) and source.device.type != target.device.type:
                self._crossings.append(Crossing(source.device.type, target.device.type, tuple(source.shape)))
        return answer


class Guardless(TorchFunctionMode):
    """`x[...]` and what else switches devices first, by ops alone: a build of torch without CUDA cannot do that."""

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is Tensor.__getitem__ and args[0].device.type == "cuda":
            return _get(args[0], args[1])
        if func is Tensor.__setitem__ and args[0].device.type == "cuda":
            return _set(args[0], args[1], args[2])
        if func in GUARDED and args[0].device.type == "cuda":
            func = GUARDED[func]
        return func(*args, **(kwargs or {}))


def _get(tensor: Tensor, index: Any) -> Tensor:
    view, advanced = _view(tensor, index)
    return aten.index(view, advanced) if advanced else aten.alias(view)  # type: ignore[no-any-return]


def _set(tensor: Tensor, index: Any, value: Any) -> None:
    view, advanced = _view(tensor, index)
    if advanced:
        given = value if isinstance(value, Tensor) else torch.tensor(value, dtype=tensor.dtype, device=tensor.device)
        aten.index_put_(view, advanced, given)
    elif isinstance(value, Tensor):
        aten.copy_(view, value)
    else:
        view.fill_(value)


def _view(tensor: Tensor, index: Any) -> tuple[Tensor, list[Tensor | None]]:
    """The part that whole numbers, slices and None name, and the tensors that index it further."""
    advanced: list[Tensor | None] = []
    at = 0
    for item in _whole(tensor, index):
        if item is None:
            tensor = tensor.unsqueeze(at)
            at += 1
        elif isinstance(item, slice):
            start, stop = (None if bound is None else operator.index(bound) for bound in (item.start, item.stop))
            tensor = aten.slice(tensor, at, start, stop, item.step or 1)
            at += 1
        elif isinstance(item, int) and not isinstance(item, bool):
            tensor = aten.select(tensor, at, item)
        else:
            given = item if isinstance(item, Tensor) else _listed(item, tensor.device)
            advanced += [None] * (at - len(advanced)) + [given]
            at += given.ndim if given.dtype == torch.bool else 1
    return tensor, advanced


def _listed(item: Any, device: torch.device) -> Tensor:
    """A list as an index; an empty one is of whole numbers."""
    return torch.tensor(item, dtype=torch.long if item == [] else None, device=device)


def _whole(tensor: Tensor, index: Any) -> Iterator[Any]:
    """The parts of an index, with slices in the place of `...`."""
    parts = list(index) if isinstance(index, tuple) else [index]
    used = sum(1 for part in parts if part is not None and not isinstance(part, EllipsisType))
    for part in parts:
        if isinstance(part, EllipsisType):
            yield from [slice(None)] * (tensor.ndim - used)
        else:
            yield part
