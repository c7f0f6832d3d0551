"""The compiled library, its functions declared, and why it cannot be had where that is so."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from llmos.syscalls.errors import BadArgument, NotSupported

from ..memory import HugePages
from ..table import Spec
from .build import library

DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}

POINTER, LONG, INT, PACKED = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int, ctypes.c_char_p

FUNCTIONS: dict[str, tuple[Any, ...]] = {
    "llmos_linear": (INT, POINTER, POINTER, POINTER, POINTER, LONG, LONG, LONG, LONG, LONG, INT),
    "llmos_paged_attention": (PACKED,),
    "llmos_norm": (PACKED,),
    "llmos_gate": (PACKED,),
    "llmos_rope": (PACKED,),
    "llmos_lora_shrink": (PACKED,),
    "llmos_lora_expand": (PACKED,),
}


class Native:
    """The library, compiled and loaded when it is first asked for, and the memory for what its ops keep."""

    def __init__(self) -> None:
        self.memory = HugePages()

    @cached_property
    def run(self) -> ctypes.CDLL:
        """Its functions, all without an answer. Raises NotSupported."""
        if isinstance(self._loaded, str):
            raise NotSupported(f"the ops in C++ cannot be used: {self._loaded}", why=self._loaded)
        return self._loaded

    def prepare(self, alive: Callable[[], None]) -> None:
        """Have the library ready; `alive` is called every second while it is compiled."""
        with ThreadPoolExecutor(1) as pool:
            made = pool.submit(lambda: self._loaded)
            while not wait([made], timeout=1.0).done:
                alive()

    def supports(self, spec: Spec) -> tuple[bool, str]:
        """Whether the library serves a case at all, and why not."""
        if spec.get("device") != "cpu":
            return False, "it runs on the CPU"
        if spec.get("dtype") not in DTYPES:
            return False, f"it computes in {' or '.join(DTYPES)}, not {spec.get('dtype')}"
        return (False, self._loaded) if isinstance(self._loaded, str) else (True, "")

    @cached_property
    def _loaded(self) -> ctypes.CDLL | str:
        try:
            loaded = ctypes.CDLL(str(library()))
        except NotSupported as error:
            return error.text
        except OSError as error:
            return f"the compiled library cannot be loaded: {error}"
        for name, arguments in FUNCTIONS.items():
            declared = getattr(loaded, name)
            declared.argtypes, declared.restype = arguments, None
        return loaded


def no_gradient(op: str, *tensors: Tensor) -> None:
    """Raises NotSupported when a gradient through these would be lost."""
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        raise NotSupported(f"{op} has no gradient; use the reference, or torch.no_grad()", why="no gradient")


def mismatch(op: str, name: str, got: object, want: object) -> BadArgument:
    return BadArgument(f"{op}: {name} is {got}; expected {want}", name=name, got=str(got), want=str(want))
