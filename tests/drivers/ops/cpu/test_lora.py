"""The products of adapters in C++: the contract of all, and that a token's bits do not depend on the others."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lora_products import check_products, segments

from llmos.drivers.ops.cpu.lora import Lora
from llmos.drivers.ops.cpu.native import Native
from llmos.drivers.ops.reference_lora import LAST, Segment, segments_of
from llmos.syscalls.errors import BadArgument, NotSupported

DTYPES = (torch.float32, torch.bfloat16)


@settings(max_examples=60)
@given(segments(), st.integers(1, 9), st.sampled_from(DTYPES))
def test_each_token_goes_through_its_own_adapter(
    native: Native, found: list[Segment], rank: int, dtype: torch.dtype
) -> None:
    lora = Lora(native)
    check_products(lora.shrink, lora.expand, found, rank, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("tokens", (1, 3, 4, 7, 40))
def test_a_token_has_the_same_bits_in_any_step(native: Native, threads: int, dtype: torch.dtype, tokens: int) -> None:
    """Wide enough that several threads share the work."""
    lora = Lora(native)
    a, b = torch.randn(3, 48, 900).to(dtype), torch.randn(3, 16, 2100).to(dtype)
    x, y = torch.randn(50, 900).to(dtype), torch.randn(50, 2100).to(dtype)

    def run(x: torch.Tensor, y: torch.Tensor, found: list[Segment]) -> torch.Tensor:
        answer, made = y.clone(), segments_of(found)
        lora.expand(answer, lora.shrink(x, a, made)[:, 16:32], b, made)
        return answer

    whole = run(x, y, [Segment(0, 0, 3), Segment(1, 3, 46), Segment(2, 46, 50)])
    alone = run(x[5 : 5 + tokens], y[5 : 5 + tokens], [Segment(1, 0, LAST)])
    assert torch.equal(alone, whole[5 : 5 + tokens])
    assert not torch.equal(alone, y[5 : 5 + tokens])


def test_what_it_cannot_read_is_refused(native: Native) -> None:
    lora, made = Lora(native), segments_of([Segment(0, 0, 2)])
    x, a, b = torch.randn(2, 4), torch.randn(1, 3, 4), torch.randn(1, 3, 5)
    for wrong in (x.double(), x[:, :3], x.t().contiguous().t()):
        with pytest.raises(BadArgument):
            lora.shrink(wrong, a, made)
    with pytest.raises(BadArgument, match="at least 2 places"):
        lora.shrink(x, a, segments_of([Segment(1, 0, 2)]))
    hidden = lora.shrink(x, a, made)
    for bad in (torch.zeros(2, 6), torch.zeros(2, 5).double(), torch.zeros(5, 2).t()):
        with pytest.raises(BadArgument):
            lora.expand(bad, hidden, b, made)
    with torch.enable_grad(), pytest.raises(NotSupported):
        lora.shrink(x.requires_grad_(), a, made)
