"""What is done about models that nobody uses: they sleep when their keep-alive time has passed."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from llmos.syscalls.errors import LlmosError, NotSupported

if TYPE_CHECKING:
    from .core import Kernel
    from .objects import ModelObject


def put_idle_to_sleep(kernel: Kernel, now: int) -> None:
    """Put to sleep what nobody has used for its keep-alive time."""
    for action in kernel.residency.tick(now):
        model = kernel.models.by_id[action.model]
        kernel.runner.spawn(kernel.models.sleep(model, kernel.stamp(action.reason)), partial(_slept, kernel, model))


def keep_alive(kernel: Kernel, model: ModelObject, seconds: float) -> None:
    """Change after how many idle seconds a model may sleep; -1 never, 0 as soon as it is idle."""
    model.options = replace(model.options, keep_alive=seconds)
    kernel.residency.keep_alive(model.id, seconds, kernel.runner.clock())


def _slept(kernel: Kernel, model: ModelObject, _value: Any, error: LlmosError | None) -> None:
    if isinstance(error, NotSupported) and model.id in kernel.models.by_id:
        kernel.residency.keep_alive(model.id, -1, kernel.runner.clock())
        kernel.log("model", f"{model.name} stays awake: {error}", model.id, level="warning")
