"""What all kernels share, as it is on a device: without the interpreter."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import torch

tl = pytest.importorskip("triton.language")

from llmos.drivers.ops.triton import house  # noqa: E402

SOURCES = {path: ast.parse(path.read_text()) for path in Path(house.__file__).parent.glob("*.py")}


def kernels(tree: ast.Module) -> list[ast.FunctionDef]:
    """What Triton compiles: the functions with a decorator of its."""
    found = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    return [each for each in found if any("triton." in ast.unparse(mark) for mark in each.decorator_list)]


def test_modules_of_kernels_say_what_they_compute_and_what_bounds_it() -> None:
    """`house` has but a piece that kernels share."""
    written = {path.stem: ast.get_docstring(tree) or "" for path, tree in SOURCES.items() if kernels(tree)}
    assert len(written) > 8
    told = {name for name, said in written.items() if " = " in said and "\nBound: " in said}
    assert set(written) - told == {"house"}


def test_no_launch_is_configured_by_trials() -> None:
    marks = {ast.unparse(mark).partition("(")[0] for tree in SOURCES.values() for each in kernels(tree)
             for mark in each.decorator_list}  # fmt: skip
    assert marks == {"triton.jit"}


def test_kernels_serve_cuda_and_floating_numbers() -> None:
    assert house.served({"device": "cuda", "dtype": "bfloat16"}) == (True, "")
    assert house.served({"device": "cpu", "dtype": "bfloat16"}) == (False, "Triton's kernels run on cuda here")
    assert house.served({"device": "cuda", "dtype": "float64"})[1].startswith("dtype float64")


def test_operands_of_products_keep_their_dtype_on_a_device() -> None:
    assert house.dot_dtype(torch.bfloat16) is tl.bfloat16
    assert house.dot_dtype(torch.float32) is tl.float32


def test_sizes() -> None:
    assert [house.cdiv(n, 16) for n in (0, 1, 16, 17)] == [0, 1, 1, 2]
    assert [house.power_of_2(n) for n in (0, 1, 2, 3, 64, 65)] == [1, 1, 2, 4, 64, 128]
