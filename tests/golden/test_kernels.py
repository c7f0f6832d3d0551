"""Every Triton kernel compiles for sm_90, and takes the registers, stack and shared memory that were recorded."""

from __future__ import annotations

import difflib
import os
import subprocess
import sys
from pathlib import Path

import pytest

triton = pytest.importorskip("triton")
tl = pytest.importorskip("triton.language")

from golden import kernels  # noqa: E402

from llmos.drivers.ops.triton.variants import Variant  # noqa: E402

RECORDED = Path(__file__).parent / "kernels_sm90.txt"


@triton.jit
def _copy(x, out, count, SIZE: tl.constexpr):
    place = tl.arange(0, SIZE)
    kept = tl.load(x + place, mask=place < count)
    for _ in range(count):
        kept += tl.load(out + place)
    tl.store(out + place, kept)


def variant(size: int, warps: int) -> Variant:
    return Variant("copy", _copy, {"x": "*fp32", "out": "*fp32", "count": "i32"}, {"SIZE": size}, warps, 1)


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))


def test_the_table_is_of_these_kernels() -> None:
    told = RECORDED.read_text().partition("\n")[0]
    assert told.endswith(f"sources {kernels.sources()}"), "kernels changed: run `make kernels` and review its diff"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_kernels_take_what_is_recorded() -> None:
    """The golden table is of one version of Triton; of another only that nothing new spills can be said."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("COV", "TRITON"))}
    command = [sys.executable, kernels.__file__, "--jobs", "2"]
    done = subprocess.run(command, env=kept, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-8000:]
    now, recorded = done.stdout.splitlines(), RECORDED.read_text().splitlines()
    if now[0] == recorded[0]:
        changes = "\n".join(difflib.unified_diff(recorded, now, "recorded", "now", lineterm="", n=0))
        assert now == recorded, f"kernels changed; if that is meant, run `make kernels` and review its diff:\n{changes}"
    may = {line.partition(":")[0] for line in recorded if ", 0 B stack" not in line}
    assert not [line for line in now[1:] if ", 0 B stack" not in line and line.partition(":")[0] not in may]


@pytest.mark.slow
def test_a_kernel_that_runs_out_of_registers_is_seen() -> None:
    few, many = kernels.compiled(variant(128, 4)), kernels.compiled(variant(8192, 1))
    assert (few.stack, few.registers < 64) == (0, True)
    assert many.stack > 0


def test_arguments_that_are_not_described_are_errors() -> None:
    forgotten = Variant("copy", _copy, {"x": "*fp32", "out": "*fp32"}, {"SIZE": 128})
    with pytest.raises(ValueError, match="count"):
        kernels.compiled(forgotten)
    with pytest.raises(ValueError, match="colour"):
        kernels.compiled(Variant("copy", _copy, variant(128, 4).signature, {"SIZE": 128, "colour": 1}))
