"""What is compiled to see that a kernel compiles, without the device that would run it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Variant:
    """One kernel as a device launches it.

    `signature` gives each argument that is no constant its type as Triton spells them ("*bf16", "i32", "fp32"), in the
    order of the kernel's arguments. Pointers are taken as divisible by 16, integers where the type ends in ":16", as
    their launch finds them. `constants` are the constexpr arguments, also integers that are 1 (which Triton makes
    constants) and arguments that are None.
    """

    name: str
    kernel: Any
    signature: Mapping[str, str]
    constants: Mapping[str, Any]
    warps: int = 4
    stages: int = 3
