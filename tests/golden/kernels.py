"""Compiles every Triton kernel for sm_90, which needs no such device, and writes what each takes, one line each.

Registers, and bytes of stack, are those of a thread, read from the cubin by Triton's own cuobjdump; a kernel whose
registers do not suffice keeps the rest on its stack, in device memory. Shared memory is that of a block of threads.
`make kernels` puts the lines into kernels_sm90.txt. They are those of one version of Triton.

    python tests/golden/kernels.py [--jobs 2] [NAME...]
"""

from __future__ import annotations

import argparse
import hashlib
import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / "build" / "kernels"
SOURCES = ROOT / "drivers" / "ops" / "triton"
RESOURCES = re.compile(r"REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)")
SHARED_BYTES = 227 * 1024
"""What a block may have on sm_90."""


@dataclass(frozen=True)
class Taken:
    """What one variant takes."""

    name: str
    warps: int
    stages: int
    registers: int
    stack: int
    shared: int

    def line(self) -> str:
        launched = f"{self.warps} warps, {self.stages} stages"
        return f"{self.name}: {launched}, {self.registers} registers, {self.stack} B stack, {self.shared} B shared"


def compiled(variant: Any) -> Taken:
    """Raises Triton's own errors for a kernel that it does not compile."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    names = variant.kernel.arg_names
    unknown = {*variant.signature, *variant.constants} ^ set(names)
    if unknown:
        raise ValueError(f"{variant.name}: {sorted(unknown)} are not both arguments of the kernel and described")
    types = {name: variant.signature.get(name, "constexpr") for name in names}
    aligned = [at for at, name in enumerate(names) if types[name].startswith("*") or types[name].endswith(":16")]
    source = ASTSource(
        fn=variant.kernel,
        signature={name: kind.partition(":")[0] for name, kind in types.items()},
        constexprs=dict(variant.constants),
        attrs={(at,): [["tt.divisibility", 16]] for at in aligned},
    )
    options = {"num_warps": variant.warps, "num_stages": variant.stages}
    made = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
    registers, stack, static, local = resources(made.asm["cubin"])
    shared = max(static, made.metadata.shared)
    if shared > SHARED_BYTES:
        raise ValueError(f"{variant.name} asks for {shared} B of shared memory; a block has {SHARED_BYTES}")
    return Taken(variant.name, variant.warps, variant.stages, registers, stack + local, shared)


def resources(cubin: bytes) -> tuple[int, int, int, int]:
    """Registers and stack of a thread, shared memory that is not asked for at launch, local memory."""
    import triton

    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [str(tool), "--dump-resource-usage", file.name]
        shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = RESOURCES.search(shown)
    if found is None:
        raise ValueError(f"cuobjdump said: {shown}")
    registers, stack, static, local = map(int, found.groups())
    return registers, stack, static, local


def wanted(names: Sequence[str]) -> list[str]:
    """All variants, or those whose names hold one of the texts."""
    from llmos.drivers.ops.triton.ops import variants

    found = [variant.name for variant in variants()]
    doubled = {name for name in found if found.count(name) > 1}
    if doubled:
        raise ValueError(f"several variants are called {', '.join(sorted(doubled))}")
    return [name for name in found if not names or any(each in name for each in names)]


def take(name: str) -> Taken:
    """One variant by its name; for a process of the pool."""
    from llmos.drivers.ops.triton.ops import variants

    return compiled(next(variant for variant in variants() if variant.name == name))


def sources() -> str:
    """A hash of the files that the kernels are written in: the table is of these."""
    files = sorted(SOURCES.glob("*.py"))
    return hashlib.sha256(b"".join(file.name.encode() + file.read_bytes() for file in files)).hexdigest()[:16]


def lines(names: Sequence[str], jobs: int) -> Iterator[str]:
    """The table."""
    import triton

    yield f"triton {triton.__version__}, sm_90, sources {sources()}"
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        yield from sorted(taken.line() for taken in pool.imap_unordered(take, wanted(names)))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="variants whose names hold this text; all by default")
    parser.add_argument("--jobs", type=int, default=2, help="how many are compiled at a time")
    options = parser.parse_args()
    os.environ.pop("TRITON_INTERPRET", None)
    os.environ["TRITON_CACHE_DIR"] = str(CACHE)
    for line in lines(options.names, options.jobs):
        print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
