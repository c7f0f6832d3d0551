"""What is written into pages: the bits of the reference where nothing is turned, also of 8-bit numbers."""

from __future__ import annotations

from itertools import product

import numpy
import pytest
import torch
from slow_cases import slow_but

from llmos.drivers.ops import reference_attention, reference_layers
from llmos.drivers.ops.cases.attention import written
from llmos.drivers.ops.reference_attention import LIMITS
from llmos.drivers.ops.triton import kv
from llmos.drivers.ops.triton.kv import head_block, rope_write, write_kv
from llmos.syscalls.errors import BadArgument, NotSupported

CPU = torch.device("cpu")


def pages_of(dtype: torch.dtype, width: int) -> tuple[torch.Tensor, ...]:
    """Pages and scales for 32 tokens of one head."""
    pages = [torch.zeros(2, 1, 16, width, dtype=dtype) for _ in range(2)]
    return *pages, torch.arange(32), torch.full((2, 1, 16), -1.0), torch.full((2, 1, 16), -1.0)


@pytest.mark.parametrize("dtype", LIMITS)
def test_every_number_is_rounded_to_nearest_and_ties_to_even(dtype: torch.dtype) -> None:
    limit = LIMITS[dtype]
    steps = torch.cat([torch.arange(-limit, limit + 0.5, 0.25), torch.linspace(-0.05, 0.05, 201), torch.randn(500)])
    width = 128
    heads = torch.nn.functional.pad(steps, (0, -len(steps) % (width - 1))).view(-1, 1, width - 1)[:32]
    heads = torch.cat([heads, torch.full_like(heads[..., :1], limit)], -1)  # the scale is 1
    heads = torch.nn.functional.pad(heads, (0, 0, 0, 0, 0, 32 - len(heads)))
    ours, theirs = pages_of(dtype, width), pages_of(dtype, width)
    write_kv(heads, -heads, *ours)
    reference_attention.write_kv(heads, -heads, *theirs)
    for mine, wanted in zip(ours, theirs, strict=True):
        assert torch.equal(mine.float(), wanted.float())
    assert float(ours[3][0, 0, 0]) == pytest.approx(1.0)


@pytest.mark.parametrize(("bad", "dtype"), slow_but([("nan", torch.int8)], product(["nan", "inf", "-inf"], LIMITS)))
def test_what_is_not_finite_stays_so(dtype: torch.dtype, bad: str) -> None:
    heads = torch.ones(32, 1, 16)
    heads[3, 0, 5] = float(bad)
    k_pages, v_pages, slots, k_scale, v_scale = pages_of(dtype, 16)
    with numpy.errstate(all="ignore"):
        write_kv(heads, heads, k_pages, v_pages, slots, k_scale, v_scale)
    found = k_pages[0, 0].float() * k_scale[0, 0, :, None]
    assert not found[3].isfinite().any()
    assert found[torch.arange(16) != 3].isfinite().all()


def test_views_are_read_and_turned_where_they_are() -> None:
    """As of one merged product."""
    made = written("rope_write", 6, 6, 2, 16, turned=16).make(CPU, torch.float32)
    other = written("rope_write", 6, 6, 2, 16, turned=16).make(CPU, torch.float32)
    q, k, cos, sin, v, *rest = made.args
    merged = torch.cat([part.flatten(1) for part in (q, k, v)], 1)
    kept = merged.clone()
    views = [part.unflatten(1, (-1, 16)) for part in torch.split(merged, [96, 32, 32], 1)]
    rope_write(views[0], views[1], cos, sin, views[2], *rest)
    rope_write(*other.args)
    assert torch.equal(views[0], other.args[0])
    assert torch.equal(rest[0], other.args[5])
    assert torch.equal(merged[:, 96:], kept[:, 96:])


@pytest.mark.parametrize("pages", ["int8", "float8_e4m3fn"])
def test_what_is_turned_is_rounded_as_the_model_rounds_before_it_is_made_narrow(pages: str) -> None:
    """The same bits as when it lay in pages of the model's dtype in between."""
    narrow, plain = (written("rope_write", 6, 4, 2, 16, turned=16, pages=kind) for kind in (pages, ""))
    direct, between = (case.make(CPU, torch.bfloat16) for case in (narrow, plain))
    rope_write(*direct.args)
    rope_write(*between.args)
    k_pages, v_pages, slots, *_ = between.args[5:]
    apart = [each[slots // each.shape[2], :, slots % each.shape[2]] for each in (k_pages, v_pages)]
    again = narrow.make(CPU, torch.bfloat16)
    write_kv(*apart, *again.args[5:])
    for place in (5, 6, 8, 9):
        assert torch.equal(again.args[place].float(), direct.args[place].float())


def test_scales_of_values_lie_as_they_lie() -> None:
    made, other = (written("write_kv", 5, 4, 2, 16, pages="int8").make(CPU, torch.float32) for _ in range(2))
    *rest, v_scale = made.args
    apart = torch.zeros(v_scale.shape[0], 3, v_scale.shape[2] + 5)
    view = apart[:, : v_scale.shape[1], : v_scale.shape[2]].copy_(v_scale)
    write_kv(*rest, view)
    write_kv(*other.args)
    assert torch.equal(view, other.args[-1]) and not torch.equal(view, torch.zeros_like(view))


def test_heads_are_shared_among_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [head_block(128, 32), head_block(64, 12), head_block(4096, 4), head_block(16, 3)] == [8, 16, 1, 4]
    monkeypatch.setattr(kv, "PROGRAM_ELEMENTS", 32)
    made, other = (written("rope_write", 3, 5, 3, 16, turned=8).make(CPU, torch.float32) for _ in range(2))
    rope_write(*made.args)
    reference_layers.rope_write(*other.args)
    for place in made.written:
        assert torch.allclose(made.args[place], other.args[place], atol=1e-6)


def test_nothing_to_write_launches_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kv, "write", None)
    k_pages, v_pages, slots, *_ = pages_of(torch.float32, 16)
    write_kv(torch.empty(0, 1, 16), torch.empty(0, 1, 16), k_pages, v_pages, slots[:0])


def test_arguments_of_another_kind_are_refused() -> None:
    heads = torch.ones(32, 1, 16)
    k_pages, v_pages, slots, k_scale, v_scale = pages_of(torch.int8, 16)
    with pytest.raises(BadArgument, match="key_scale"):
        write_kv(heads, heads, k_pages, v_pages, slots)
    with pytest.raises(BadArgument, match="key_scale"):
        write_kv(heads, heads, k_pages.float(), v_pages.float(), slots, k_scale, v_scale)
    with pytest.raises(BadArgument, match="cos"):
        angles = torch.ones(32, 18)
        rope_write(heads, heads, angles, angles, heads, k_pages, v_pages, slots, k_scale, v_scale)
    with pytest.raises(BadArgument, match="dense"):
        write_kv(torch.ones(32, 1, 32)[..., ::2], heads, k_pages, v_pages, slots, k_scale, v_scale)
    with pytest.raises(NotSupported, match="gradient"):
        write_kv(heads.requires_grad_(), heads, k_pages, v_pages, slots, k_scale, v_scale)
