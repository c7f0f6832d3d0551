"""Variants name each argument of their kernel once: as a type, or as a constant."""

from __future__ import annotations

import re

import pytest

pytest.importorskip("triton")

from llmos.drivers.ops.triton.ops import variants
from llmos.drivers.ops.triton.variants import Variant

TYPE = re.compile(r"\*?(bf16|fp16|fp32|fp64|fp8e4nv|i1|i8|i16|i32|i64|u8|u32)(:16)?")


@pytest.mark.parametrize("variant", variants(), ids=lambda variant: variant.name)
def test_arguments_are_described_once(variant: Variant) -> None:
    assert set(variant.signature) | set(variant.constants) == set(variant.kernel.arg_names)
    assert not set(variant.signature) & set(variant.constants)
    assert all(TYPE.fullmatch(kind) for kind in variant.signature.values()), variant.signature


def test_names_tell_variants_apart() -> None:
    names = [variant.name for variant in variants()]
    assert len(names) == len(set(names))
