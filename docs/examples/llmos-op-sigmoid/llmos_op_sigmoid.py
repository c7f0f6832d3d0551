"""silu_mul by the sigmoid: one operation, for the devices of others."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from llmos.drivers.hookspecs import hookimpl

if TYPE_CHECKING:
    from torch import Tensor


def silu_mul(gate_up: Tensor) -> Tensor:
    """silu(gate) * up of [..., 2 I]."""
    gate, up = gate_up.float().chunk(2, dim=-1)
    return (gate * gate.sigmoid() * up).to(gate_up.dtype)


def supports(spec: dict[str, Any]) -> tuple[bool, str]:
    """Whether a case is served, and if not why: people read it in `llmos devices --ops`."""
    return spec["dtype"] == "float16", "written for float16"


@hookimpl
def register_ops(register: Callable[..., None]) -> None:
    register("silu_mul", "sigmoid", silu_mul, supports)
