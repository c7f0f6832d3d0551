"""A GPU of NVIDIA as a device: the engine on CUDA, with kernels in Triton.

Each host process sees its own GPU alone, which torch calls `cuda:0` there: nothing is ever allocated on another. A
device of several GPUs has a process on each; see `engine/parallel`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar

from llmos.syscalls.errors import BadArgument, BadState, NotFound, NotSupported

from ...contract import DeviceFactory, Facts, FailedEvent, StepEvent, TuneEvent
from ...hookspecs import hookimpl
from ...ops.table import OpTable
from ..torch_device import FEATURES, TorchDevice
from . import faults
from .leases import IpcLeases
from .nvml import VISIBLE, Nvml, pick

if TYPE_CHECKING:
    from ...engine.place import Place
    from .place import CudaPlace

PARTS = f"{__name__}:parts"
NAMES = tuple(f"cuda{number}" for number in range(8))
SHARE = 0.5
PREFILL_TOKENS = 2048
"""At most: while others decode, the scheduler takes as many as their pace allows."""


@hookimpl
def register_devices(register: Callable[[str, DeviceFactory], None]) -> None:
    for name in NAMES:
        register(name, partial(CudaDevice, name))


class CudaDevice(TorchDevice):
    """One GPU."""

    kind: ClassVar[str] = "cuda"
    prefill_tokens: ClassVar[int] = PREFILL_TOKENS
    config_keys: ClassVar[Mapping[str, str]] = {
        "prefill_tokens": f"tokens of a prompt that go through a model in one step; {PREFILL_TOKENS} by default",
        "kv_share": "share of the memory that is free beside a model's weights that its keys and values may take; "
        f"{SHARE} by default",
        "gpus": "numbers of the GPUs that each model is split among; the device's own number by default",
    }

    def __init__(
        self, name: str = NAMES[0], open_nvml: Callable[[], Nvml] | None = None, rank: int = 0
    ) -> None:
        """`rank`: which of its GPUs this process is for."""
        super().__init__()
        self._device, self._rank = name, rank
        self._open = open_nvml or _nvml
        self._nvml: Nvml | None = None
        self._uuids: list[str] = []
        self._context_bytes = 0
        self._gpu: CudaPlace | None = None
        self._leases = self._shared = IpcLeases()

    def _find(self, config: Mapping[str, Any]) -> None:
        """Find the GPUs and hide all others, before CUDA is asked anything."""
        _share(config)
        numbers = _numbers(config, int(self._device.removeprefix("cuda")))
        self._nvml = self._open()
        gpus, wanted = self._nvml.gpus(), os.environ.get(VISIBLE)
        self._uuids = [pick(gpus, wanted, number) for number in numbers]
        os.environ[VISIBLE] = ",".join(self._uuids)

    def _register_own(self) -> None:
        try:
            from ...ops.triton.ops import register_triton
        except ImportError as error:
            print(f"{self._device}: without kernels in Triton: {error}", file=sys.stderr)
            return
        register_triton(self.ops)

    def _place(self, threads: int, config: Mapping[str, Any]) -> Place:
        """Begin a context on the GPU. Raises NotSupported."""
        import torch

        from .place import CudaPlace

        if not torch.cuda.is_available():
            built = torch.version.cuda or "without it"
            why = f"this torch ({torch.__version__}) cannot use CUDA: built for {built}"
            raise NotSupported(f"{self._device}: {why}; install a build for CUDA", why=why)
        device, uuid = torch.device("cuda", self._rank), self._uuids[self._rank]
        before = self._library().read(uuid).used
        torch.cuda.set_device(device)  # where kernels in Triton are launched
        torch.zeros(1, device=device)
        torch.cuda.synchronize(device)
        self._context_bytes = max(0, self._library().read(uuid).used - before)
        self._gpu = place = CudaPlace(device, _share(config))
        ranks = len(self._uuids)
        if ranks == 1 or self._rank:
            return place
        from ...engine.parallel.divided import HostPlace
        from ...engine.parallel.ranks import Crew, Ranks

        seen = {**config, "gpus": list(range(ranks))}  # a rank's process inherits what is hidden
        self._ranks = Ranks(Crew(ranks, PARTS, self._device, threads, seen, device))
        self._ranks.start()
        return HostPlace(place, self._ranks)

    def stop(self) -> None:
        super().stop()
        if self._nvml is not None:
            self._nvml.close()
            self._nvml = None

    def facts(self) -> Facts:
        """Of several GPUs, which are filled alike, that of this process counts for all. The context that CUDA needs for
        itself is not there for models.
        """
        nvml, ranks, uuid = self._library(), len(self._uuids), self._uuids[self._rank]
        now = nvml.read(uuid)
        foreign = ranks * now.foreign(os.getpid(), self._context_bytes + self._reserved() + self._shared.bytes)
        total = ranks * (now.total - self._context_bytes)
        name = nvml.name(uuid) if ranks == 1 else f"{ranks} x {nvml.name(uuid)}"
        asleep = 0 if self._engine is None else self._engine.resting_bytes()
        known: dict[str, int | str] = {"uuid": ",".join(self._uuids), "gpus": ranks, "host_bytes_asleep": asleep}
        features = {**now.figures, **known, **FEATURES}
        return Facts(self._device, self.kind, total, foreign, name, features, unit=",".join(self._uuids))

    def step(self) -> Sequence[StepEvent | TuneEvent]:
        """A request that a lost context has failed takes the process with it."""
        events = super().step()
        for event in events:
            lost = faults.cause(event.error) if isinstance(event, FailedEvent) else None
            if lost is not None:
                raise faults.fault(lost)
        return events

    def _watched(self) -> AbstractContextManager[None]:
        return _Watch()

    def _held(self) -> int:
        """What torch has taken from the driver, on each GPU alike."""
        return len(self._uuids) * self._reserved()

    def _reserved(self) -> int:
        import torch

        away = 0 if self._gpu is None else self._gpu.dropped_bytes()
        return torch.cuda.memory_reserved(self._rank) - away

    def _library(self) -> Nvml:
        if self._nvml is None:
            raise BadState(f"the device {self._device} is not started", state="stopped")
        return self._nvml


class _Watch(AbstractContextManager[None]):
    """Turns what says that the context is lost into a fault of the device."""

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        lost = None if error is None else faults.cause(error)
        if lost is not None:
            raise faults.fault(lost) from error


def parts(name: str, threads: int, config: Mapping[str, Any], rank: int) -> tuple[OpTable, Place]:
    """What another rank of a device of several GPUs computes with."""
    device = CudaDevice(name, rank=rank)
    device.start(name, threads, config)
    return device.ops, device.place


def _numbers(config: Mapping[str, Any], own: int) -> list[int]:
    """The GPUs of a device. Raises BadArgument."""
    value = config.get("gpus", [own])
    whole = isinstance(value, list) and all(isinstance(each, int) and not isinstance(each, bool) for each in value)
    if not whole or not value or min(value) < 0 or len(set(value)) < len(value):
        want = "a list of different numbers of GPUs"
        raise BadArgument(f"gpus is {value!r}; expected {want}", name="gpus", got=repr(value), want=want)
    return list(value)


def _share(config: Mapping[str, Any]) -> float:
    """Raises BadArgument."""
    value = config.get("kv_share", SHARE)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1:
        want = "a number above 0, at most 1"
        raise BadArgument(f"kv_share is {value!r}; expected {want}", name="kv_share", got=repr(value), want=want)
    return float(value)


def _nvml() -> Nvml:
    """Raises NotFound when NVIDIA's driver, or the interface to it, is not there."""
    try:
        import pynvml
    except ImportError as error:
        raise NotFound(f"there is no interface to NVIDIA's driver: {error}; install nvidia-ml-py") from error
    return Nvml(pynvml)
