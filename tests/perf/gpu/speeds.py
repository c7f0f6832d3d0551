"""Every implementation on every large case of the grid, beside the reference and the bytes that it must touch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from llmos.drivers.ops.cases.case import Call, Case, dtype_of
from llmos.drivers.ops.cases.grid import grid
from torch import Tensor

from .checks import HEAVY
from .clock import copies, seconds
from .setting import Found, Setting
from .tables import op_table

DTYPE = "bfloat16"


def run(setting: Setting) -> Iterator[Found]:
    device, table = torch.device(setting.device), op_table(setting.device)
    small = {(case.op, case.name) for case in grid(tiny=True)}
    for case in sorted(grid(tiny=setting.tiny), key=lambda case: case.op == HEAVY):
        if DTYPE not in case.dtypes or ((case.op, case.name) in small and not setting.tiny):
            continue
        made = case.make(device, dtype_of(DTYPE))
        size = touched(made)
        calls = [made, *(case.make(device, dtype_of(DTYPE)) for _ in range(min(4, copies(size, setting.device)) - 1))]
        found: dict[str, Any] = {"bytes": size, "seconds": {}, "failed": {}}
        for name in table.names(case.op):
            chosen = table.implementation(case.op, name)
            if not chosen.supports(case.asked(device, DTYPE))[0]:
                continue
            try:
                runs = [run_of(case, chosen.call, call) for call in calls]
                with torch.no_grad():
                    found["seconds"][name] = seconds(runs, setting.device, rounds=5, captured=name != "torch")
            except Exception as error:  # noqa: BLE001  # a kernel that fails is a finding, not the end
                found["failed"][name] = f"{type(error).__name__}: {error}"[:300]
        yield {f"{case.op}: {case.name}": found}


def run_of(case: Case, implementation: Callable[..., Any], call: Call) -> Callable[[], Any]:
    return lambda: case.run(implementation, call)


def touched(call: Call) -> int:
    """Bytes of the tensors among the arguments, each counted once, and once more if it is written."""
    every = [tensor for value in (*call.args, *call.options.values()) for tensor in tensors(value)]
    written = [tensor for place in call.written for tensor in tensors(call.args[place])]
    return sum(tensor.numel() * tensor.itemsize for tensor in (*every, *written))


def tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    return [tensor for each in value for tensor in tensors(each)] if isinstance(value, list | tuple) else []
