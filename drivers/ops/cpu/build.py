"""Compiles the C++ ops at their first use and keeps the library in the user's cache folder.

The name of a library holds a hash of all that it depends on: sources, flags, compiler, and the processor, since it is
compiled for exactly this one. Processes that build at the same time each build their own and put it in place by a
rename, so that nobody ever sees half a library.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch

from llmos.syscalls.errors import NotSupported

SOURCES = Path(__file__).parent
FLAGS = ("-std=c++17", "-O2", "-march=native", "-ffp-contract=off", "-fPIC", "-fopenmp")
NEEDED = frozenset(("avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512_bf16"))
QUANTIZED_NEEDED = frozenset(("avx2", "fma", "f16c"))
CPU_INFO = Path("/proc/cpuinfo")
COMPILER_VARIABLE = "CXX"
LIMIT_S = 600.0


@dataclass(frozen=True)
class Part:
    """Sources that make one library, by what their names begin with, and what the processor must have for it."""

    name: str
    sources: str
    needed: frozenset[str]
    flags: tuple[str, ...] = FLAGS

    def paths(self) -> list[Path]:
        """Of the sources, sorted."""
        return sorted(SOURCES.glob(f"{self.sources}*.cpp"))


WHOLE = Part("cpu", "", NEEDED)
QUANTIZED = Part("cpu-quantized", "quantized", QUANTIZED_NEEDED)
"""What more processors can: it has a way without AVX-512."""


def library(part: Part = WHOLE, cache: Path | None = None) -> Path:
    """Path of the compiled library, built when it is not there yet (about ten seconds).

    Raises NotSupported with the reason when the processor, the compiler or the folder is not fit.
    """
    missing = part.needed - cpu_flags()
    if missing:
        raise NotSupported(f"the processor has no {', '.join(sorted(missing))}")
    name = os.environ.get(COMPILER_VARIABLE, "g++")
    compiler = shutil.which(name)
    if compiler is None:
        raise NotSupported(f"there is no compiler {name}; install g++, or name one in {COMPILER_VARIABLE}")
    folder = cache or default_cache()
    path = folder / f"{part.name}-{_fingerprint(compiler, part)}.so"
    if not path.exists():
        _compile(compiler, part, path)
    return path


def default_cache() -> Path:
    """`llmos/ops` below the user's cache folder (XDG Base Directory Specification)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "llmos" / "ops"


def cpu_flags() -> frozenset[str]:
    """What the processor can do, by Linux's names; empty where it is not told."""
    return frozenset(_cpu_line("flags").split())


def _cpu_line(name: str) -> str:
    lines = CPU_INFO.read_text().splitlines() if CPU_INFO.exists() else []
    return next((line.partition(":")[2] for line in lines if line.startswith(name)), "")


def _fingerprint(compiler: str, part: Part) -> str:
    parts = [*part.flags, *sorted(cpu_flags()), _cpu_line("model name"), _run([compiler, "--version"]), str(_openmp())]
    parts += [path.read_text() for path in sorted(SOURCES.glob("*.h")) + part.paths()]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]


def _openmp() -> Path | None:
    """The OpenMP library that torch brought: with it there is one pool of threads, not two that fight for cores."""
    root = Path(torch.__file__).parent
    places = (root / "lib", root.parent / "torch.libs")
    return next((path for place in places for path in sorted(place.glob("libgomp*.so*"))), None)


def _compile(compiler: str, part: Part, path: Path) -> None:
    openmp = _openmp()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="build-", dir=path.parent) as work:
            made = Path(work, "ops.so")
            sources = part.paths()
            objects = [Path(work, source.stem + ".o") for source in sources]
            for source, target in zip(sources, objects, strict=True):
                _run([compiler, *part.flags, "-c", str(source), "-o", str(target)])
            # Linked without -fopenmp, which would add the compiler's own OpenMP library.
            _run([compiler, "-shared", *map(str, objects), *([str(openmp)] if openmp else ["-lgomp"]), "-o", str(made)])
            made.replace(path)
    except OSError as error:
        raise NotSupported(f"the ops could not be compiled below {path.parent}: {error}") from error


def _run(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise NotSupported(f"{command[0]} took longer than {LIMIT_S:.0f} s") from error
    if done.returncode:
        raise NotSupported(f"{command[0]} failed with status {done.returncode}: {done.stderr[-2000:]}")
    return done.stdout
