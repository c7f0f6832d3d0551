"""What every packed linear layer must do."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from llmos.drivers.ops.linear import PackedLinear
from llmos.syscalls.errors import BadArgument

Make = Callable[[Sequence[Tensor], Tensor | None], PackedLinear]


def check_linear(
    make: Make, dtype: torch.dtype, sizes: Sequence[int] = (40, 3, 9), ins: int = 36, with_bias: bool = True
) -> PackedLinear:
    weights = [torch.randn(size, ins).to(dtype) for size in sizes]
    bias = torch.randn(sum(sizes)).to(dtype) if with_bias else None
    layer, dense = make(weights, bias), torch.cat(weights)
    assert torch.equal(layer.unpack(), dense)
    ids = torch.tensor([[0, sum(sizes) - 1], [sum(sizes) // 2, 0]])
    assert torch.equal(layer.rows(ids), dense[ids])
    assert dense.nbytes <= layer.nbytes
    assert (layer.sizes, layer.in_features, layer.out_features) == (tuple(sizes), ins, sum(sizes))
    for shape in ((1,), (2, 3), (1, 5), (17,), (0,)):
        x = torch.randn(*shape, ins).to(dtype)
        check_product(layer(x), x, dense, bias)
    wide = torch.randn(6, 2 * ins + 1).to(dtype)
    check_product(layer(wide[:, 1 : ins + 1]), wide[:, 1 : ins + 1], dense, bias)
    check_product(layer(wide[:, ::2][:, :ins]), wide[:, ::2][:, :ins], dense, bias)
    check_pieces(layer, dense)
    check_gradient(layer, dense)
    check_refusals(layer)
    return layer


def check_pieces(layer: PackedLinear, dense: Tensor) -> int:
    """That the weights come whole and in their order; returns in how many pieces."""
    copies = [(outs, weights.clone()) for outs, weights in layer.pieces()]  # a piece is there until the next one
    ends = [outs.stop for outs, _ in copies]
    assert [outs.start for outs, _ in copies] == [0, *ends[:-1]] and ends[-1] == layer.out_features
    assert all(len(weights) == outs.stop - outs.start <= layer.piece for outs, weights in copies)
    assert torch.equal(torch.cat([weights for _, weights in copies]), dense)
    return len(copies)


def check_product(answer: Tensor, x: Tensor, dense: Tensor, bias: Tensor | None) -> None:
    """Within what rounding of the sum and, in bfloat16, of the answer allows."""
    exact = x.double() @ dense.double().T + (0 if bias is None else bias.double())
    magnitude = x.double().abs() @ dense.double().abs().T + exact.abs()
    unit = torch.finfo(answer.dtype).eps / 2
    assert answer.dtype == x.dtype and answer.shape == exact.shape
    assert ((answer.double() - exact).abs() <= unit * exact.abs() + 1e-5 * magnitude).all()


def check_gradient(layer: PackedLinear, dense: Tensor) -> None:
    x = torch.randn(2, 5, layer.in_features).to(layer.dtype).requires_grad_()
    weight = torch.randn(2, 5, layer.out_features).to(layer.dtype)
    (layer(x) * weight).sum().backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None
    exact = weight.double() @ dense.double()
    off, parts = torch.zeros_like(exact), [weight[..., at].double() @ dense[at].double() for at, _ in layer.pieces()]
    for each in (exact, *parts):  # what each piece makes is rounded, and their sum
        off += each.abs()
    assert ((x.grad.double() - exact).abs() <= torch.finfo(x.dtype).eps * off + 1e-2).all()
    with torch.no_grad():
        assert not layer(x).requires_grad
    assert not list(layer.parameters())


def check_refusals(layer: PackedLinear) -> None:
    with pytest.raises(BadArgument, match="expected"):
        layer(torch.randn(2, layer.in_features + 1).to(layer.dtype))
    with pytest.raises(BadArgument, match="expected"):
        layer(torch.randn(2, layer.in_features).double())
