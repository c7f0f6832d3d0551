"""The compiled library, its functions declared, and why it cannot be had where that is so."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cached_property, lru_cache

import torch
from torch import Tensor

from llmos.syscalls.errors import NotSupported

from ..checks import mismatch as mismatch
from ..checks import no_gradient as no_gradient
from ..memory import HugePages
from ..table import Spec
from .build import WHOLE, Part, library

DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}

OPS = (
    "llmos_linear", "llmos_paged_attention", "llmos_norm", "llmos_gate", "llmos_rope", "llmos_lora_shrink",
    "llmos_lora_expand", "llmos_quantized_linear",
)  # fmt: skip
"""Each takes one packed problem; in the order of program.cpp."""
ALONE = ("llmos_best_scales", "llmos_numbers", "llmos_dequantized", "llmos_quantized_pack")
"""The same, for what is never part of a program."""
PROGRAM = "llmos_program"
HEAD = struct.Struct("=2q")
"""`Head` of program.cpp."""


class Native:
    """The library, compiled and loaded when it is first asked for, and the memory for what its ops keep."""

    def __init__(self, part: Part = WHOLE) -> None:
        self._part = part
        self.memory = HugePages()
        self._arena = torch.empty(0, dtype=torch.uint8)
        self.together: Together | None = None
        """While it is set, ops wait for its end."""

    def call(self, op: str, problem: bytes, *used: Tensor, made: tuple[Tensor, ...] = ()) -> None:
        """Carry out an op on a packed problem whose addresses are those of tensors that are `used`, and of others that
        were `made` for what it computes. Raises NotSupported."""
        if self.together is not None:
            self.together.add(op, problem, used, made)
        else:
            getattr(self.run, op)(problem)

    def check(self) -> None:
        """Raises NotSupported when the library cannot be had."""
        assert self.run

    @cached_property
    def run(self) -> ctypes.CDLL:
        """Its functions, all without an answer. Raises NotSupported."""
        if isinstance(self._loaded, str):
            raise NotSupported(f"the ops in C++ cannot be used: {self._loaded}", why=self._loaded)
        return self._loaded

    def arena(self, size: int) -> Tensor:
        """So many bytes for what is made on the way; the next who asks gets the same."""
        if size > self._arena.nbytes:
            self._arena = torch.empty(2 * size, dtype=torch.uint8)
        return self._arena

    def rows(self, x: Tensor) -> Tensor:
        """x as [rows, width], each row dense; copied where it must be. Raises NotSupported when what would be copied
        may not be computed yet."""
        flat = x.reshape(-1, x.shape[-1])
        flat = flat if flat.stride(1) == 1 else flat.contiguous()
        if self.together is not None and flat.data_ptr() != x.data_ptr():
            why = "it would be copied before it is computed"
            raise NotSupported(f"a tensor {tuple(x.shape)} with strides {x.stride()} needs a copy: {why}", why=why)
        return flat

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
        if spec.get("kv_dtype", "") not in ("", spec["dtype"]):
            return False, f"pages of {spec['kv_dtype']}; it reads and writes those of {spec['dtype']}"
        return (False, self._loaded) if isinstance(self._loaded, str) else (True, "")

    @cached_property
    def _loaded(self) -> ctypes.CDLL | str:
        try:
            loaded = ctypes.CDLL(str(library(self._part)))
        except NotSupported as error:
            return error.text
        except OSError as error:
            return f"the compiled library cannot be loaded: {error}"
        for name, more in {**dict.fromkeys((*OPS, *ALONE), ()), PROGRAM: (ctypes.c_int64, ctypes.c_int64)}.items():
            declared = getattr(loaded, name, None)
            if declared is None:  # a part has some of them
                continue
            declared.argtypes, declared.restype = (ctypes.c_void_p, *more), None
        return loaded


class Together:
    """A block whose ops are carried out at its end, one after the other by one team of threads: nothing but such ops
    may touch what they compute before that. A block within a block is part of it.
    """

    def __init__(self, native: Native) -> None:
        self._native = native
        self.program: list[bytes] = []
        self.used: list[Tensor] = []
        """Memory that an op is still to use must not go to anybody else."""
        self.made: list[Tensor] = []
        self._depth = 0

    def add(self, op: str, problem: bytes, used: tuple[Tensor, ...], made: tuple[Tensor, ...]) -> None:
        """The next op."""
        self.program += (_head(op, len(problem)), problem)
        self.used += used
        self.made += made

    def __enter__(self) -> Together:
        self._native.together = self
        self._depth += 1
        return self

    def __exit__(self, kind: object, *_error: object) -> None:
        self._depth -= 1
        if self._depth:
            return
        self._native.together = None
        if kind is None:
            program = b"".join(self.program)
            self._native.run.llmos_program(program, len(program), torch.get_num_threads())


@lru_cache
def _head(op: str, size: int) -> bytes:
    """What stands before a problem of so many bytes."""
    return HEAD.pack(OPS.index(op), size)
