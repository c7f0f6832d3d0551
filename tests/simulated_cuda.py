"""A GPU that is not there, with numbers: tensors that say they are on it and lie in the memory of the CPU.

`with SimulatedCuda():` the engine can be run as on a GPU. What raises there raises here: tensors of two devices in one
op, an index or a generator of the wrong device where that matters. It is slow, and shows nothing of speed or memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from types import TracebackType
from typing import Any
from unittest.mock import patch

import torch
from fake_cuda import DEVICE, Guardless
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_flatten, tree_map_only

from llmos.drivers.engine.place import Processor, Report

aten = torch.ops.aten
CAPABILITY = (7, 0)
"""Of a GPU for which the library takes no kernels of its own."""

MOVES = (aten._to_copy, aten.to, aten.copy_)
LOOKS = (Tensor.untyped_storage, Tensor.tolist, Tensor.__float__, Tensor.__int__, Tensor.__bool__, Tensor.__index__)
TAKES_HOST_INDICES = (aten.index, aten.index_put, aten.index_put_)


class OnGpu(Tensor):
    """A tensor on the simulated GPU; `inner` has its numbers."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> OnGpu:
        made: OnGpu = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, inner.shape, strides=inner.stride(), storage_offset=inner.storage_offset(), dtype=inner.dtype,
            device=DEVICE, requires_grad=False,
        )  # fmt: skip
        made.inner = inner
        return made

    def __repr__(self, **_options: Any) -> str:  # type: ignore[override]
        return f"OnGpu({self.inner!r})"

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return run(func, args, kwargs or {})


def up(tensor: Tensor) -> Tensor:
    """The same numbers on the GPU; of a parameter, as one."""
    if isinstance(tensor, torch.nn.Parameter):
        return torch.nn.Parameter(OnGpu(tensor.detach().clone()), requires_grad=False)
    return OnGpu(tensor.detach().clone())


def run(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Carry out an op where its tensors are. Raises RuntimeError when they are not in one place."""
    flat, _ = tree_flatten((args, kwargs))
    wanted = next((each for each in flat if isinstance(each, torch.device)), None)
    if wanted is None and kwargs.get("device") is not None:
        wanted = torch.device(kwargs["device"])
    on_gpu = any(isinstance(each, OnGpu) for each in flat)
    goes_up = wanted is not None and wanted.type == "cuda"
    if not on_gpu and not goes_up:
        return func(*args, **kwargs)
    if func.overloadpacket not in MOVES:
        _check(func, flat)
    given = tree_map_only(OnGpu, lambda each: each.inner, (tuple(args), dict(kwargs)))
    bare, named = tree_map_only(torch.device, lambda _: torch.device("cpu"), given)
    if func.overloadpacket is aten.histc:  # counts whole numbers too on a GPU, unlike on a CPU
        bare = (bare[0].float(), *bare[1:])
    answer = func(*bare, **named)
    if func.overloadpacket is aten.copy_ and not isinstance(args[0], OnGpu):
        return args[0]
    if wanted is not None and not goes_up:
        return answer
    wrapped = tree_map_only(Tensor, OnGpu, answer)
    return return_and_correct_aliasing(func, args, kwargs, wrapped) if on_gpu and not goes_up else wrapped


def _check(func: Any, flat: Iterable[Any]) -> None:
    """As on a GPU, numbers of the host (no dimensions) may take part, and its integers may index."""
    lenient = getattr(func, "overloadpacket", None) in TAKES_HOST_INDICES
    for each in flat:
        if isinstance(each, torch.Generator):
            raise RuntimeError(f"{func}: Expected a 'cuda' device type for generator but found 'cpu'")
        if isinstance(each, Tensor) and not isinstance(each, OnGpu) and each.ndim:
            if lenient and not each.is_floating_point():
                continue
            raise RuntimeError(f"{func}: Expected all tensors to be on the same device: cuda and cpu {each.shape}")


class _Ops(TorchDispatchMode):
    """In the place of a fake mode, inside which torch does not look for a GPU before it makes something there."""

    def __init__(self) -> None:
        super().__init__()
        self._mode_key = torch._C._TorchDispatchModeKey.FAKE  # type: ignore[assignment]

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return run(func, args, kwargs or {})


class _Functions(TorchFunctionMode):
    """What is chosen by the device before an op is reached, and what looks at memory."""

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        options = dict(kwargs or {})
        if func is torch.nn.functional.scaled_dot_product_attention and isinstance(args[0], OnGpu):
            _check(func, tree_flatten((args, options))[0])
            bare, named = tree_map_only(OnGpu, lambda each: each.inner, (tuple(args), options))
            return OnGpu(func(*bare, **named))
        if func in LOOKS and isinstance(args[0], OnGpu):
            return func(args[0].inner)
        return func(*args, **options)


class SimulatedCuda(AbstractContextManager["SimulatedCuda"]):
    """While it lasts, what is made on `cuda` is simulated."""

    def __init__(self) -> None:
        self._modes = ExitStack()

    def __enter__(self) -> SimulatedCuda:
        lifted = torch._C._only_lift_cpu_tensors()
        torch._C._set_only_lift_cpu_tensors(True)
        self._modes.callback(torch._C._set_only_lift_cpu_tensors, lifted)
        self._modes.enter_context(patch.object(torch.cuda, "get_device_capability", lambda *_device: CAPABILITY))
        self._modes.enter_context(torch.inference_mode())
        for mode in (_Ops(), _Functions(), Guardless()):
            self._modes.enter_context(mode)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._modes.close()


class SimulatedPlace(Processor):
    """The CPU, but that models move to the simulated GPU."""

    device = DEVICE

    def move(self, module: Any, report: Report) -> None:
        replace_tensors(module, up)


def replace_tensors(module: torch.nn.Module, change: Callable[[Tensor], Tensor]) -> None:
    """Give a module other parameters and buffers; what was shared stays shared."""
    made: dict[int, Tensor] = {}
    for part in module.modules():
        for held in (part._parameters, part._buffers):
            for name, tensor in held.items():
                if tensor is not None:
                    if id(tensor) not in made:
                        made[id(tensor)] = change(tensor)
                    held[name] = made[id(tensor)]  # type: ignore[assignment]
