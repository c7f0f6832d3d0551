"""Device memory that keeps its addresses while it is away: `segments.c`, built at its first use, for Python.

The library is compiled by the system's C compiler and kept in the user's cache folder under a hash of its source;
nothing of CUDA is needed for that.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from llmos.syscalls.errors import NotSupported

SOURCE = Path(__file__).with_name("segments.c")
DRIVER = "libcuda.so.1"
FLAGS = ("-std=gnu11", "-O2", "-fPIC", "-shared", "-pthread")
COMPILER_VARIABLE = "CC"
LIMIT_S = 120.0
TAKE, GIVE = "segments_take", "segments_give"


class Segments:
    """The segments of this process."""

    def __init__(self, library: Path, driver: str = DRIVER) -> None:
        """`driver`: the library of NVIDIA's driver. Raises NotSupported."""
        self.path = library
        try:
            self._library = ctypes.CDLL(str(library))
        except OSError as error:
            raise NotSupported(f"the allocator of segments cannot be used: {error}") from error
        self._declare()
        if self._library.segments_open(driver.encode()):
            said: bytes = self._library.segments_error()
            raise NotSupported(f"the allocator of segments cannot be used: {said.decode(errors='replace')}")

    def around(self, address: int) -> int | None:
        """The first address of the segment that an address is in; None where it is in none."""
        size = ctypes.c_size_t()
        base: int | None = self._library.segments_around(address, ctypes.byref(size))
        return base

    def drop(self, bases: Sequence[int]) -> None:
        """Let segments lose their memory, and keep their addresses. Raises RuntimeError; then some may have lost it."""
        for base in bases:
            self._check(self._library.segments_map(base, 0))

    def fill(self, bases: Sequence[int]) -> None:
        """Let segments have memory again, with any content. Raises RuntimeError; then none of them has any."""
        try:
            for base in bases:
                self._check(self._library.segments_map(base, 1))
        except RuntimeError:
            self.drop(bases)
            raise

    @property
    def dropped_bytes(self) -> int:
        """Of all that have no memory now."""
        found: int = self._library.segments_dropped()
        return found

    def _check(self, error: int) -> None:
        if error:
            said: bytes = self._library.segments_meaning(error)
            raise RuntimeError(f"CUDA error: {said.decode(errors='replace')} ({error})")

    def _declare(self) -> None:
        api = self._library
        api.segments_open.argtypes, api.segments_error.restype = [ctypes.c_char_p], ctypes.c_char_p
        api.segments_meaning.argtypes, api.segments_meaning.restype = [ctypes.c_int], ctypes.c_char_p
        api.segments_around.argtypes = [ctypes.c_void_p, ctypes.POINTER(ctypes.c_size_t)]
        api.segments_around.restype = ctypes.c_void_p
        api.segments_map.argtypes = [ctypes.c_void_p, ctypes.c_int]
        api.segments_dropped.restype = ctypes.c_size_t


def library(cache: Path) -> Path:
    """Path of the compiled allocator below a folder, built when it is not there yet (a second).

    Raises NotSupported with the reason.
    """
    name = os.environ.get(COMPILER_VARIABLE, "cc")
    compiler = shutil.which(name)
    if compiler is None:
        raise NotSupported(f"there is no compiler {name}; install gcc, or name one in {COMPILER_VARIABLE}")
    depends = "\0".join((SOURCE.read_text(), *FLAGS, os.uname().machine))
    path = cache / f"segments-{hashlib.sha256(depends.encode()).hexdigest()[:24]}.so"
    if not path.exists():
        compile_library(compiler, [SOURCE], path)
    return path


def compile_library(compiler: str, sources: Sequence[Path], path: Path) -> None:
    """Put a library in place whole, whoever else builds it at the same time. Raises NotSupported."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="build-", dir=path.parent) as work:
            made = Path(work, path.name)
            command = [compiler, *FLAGS, *map(str, sources), "-o", str(made), "-ldl"]
            done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)
            if done.returncode:
                raise NotSupported(f"{compiler} failed with status {done.returncode}: {done.stderr[-2000:]}")
            made.replace(path)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotSupported(f"the allocator of segments could not be compiled below {path.parent}: {error}") from error
