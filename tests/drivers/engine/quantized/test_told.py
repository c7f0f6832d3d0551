"""What is said about quantized weights: all schemes, and what stays."""

from __future__ import annotations

from torch import nn

from llmos.drivers.engine.quantized.stored import StoredLinear
from llmos.drivers.engine.quantized.told import short, told
from llmos.drivers.ops.linear import PlainLinear
from llmos.drivers.ops.quantized import Scheme, round_to_nearest
from llmos.drivers.ops.quantized_linear import ReferenceQuantized


def test_schemes_have_short_names() -> None:
    assert short(Scheme(4, 32, shift=True), "int8") == "w4a8-g32-shift"
    assert short(Scheme(8, 0, "float"), "float8") == "fp8a8" and short(Scheme(8, 0), "model") == "w8a16"


def test_shares_are_those_of_the_weights() -> None:
    weight = nn.Linear(32, 30).weight.detach()
    first = StoredLinear(round_to_nearest(weight, Scheme(4, 32)), None, weight.dtype, "int8")
    second = ReferenceQuantized([round_to_nearest(weight[:10], Scheme(8, 0))], None, weight.dtype)
    model = nn.Sequential(first, second, PlainLinear([weight[:5]], None), nn.Embedding(5, 32))
    assert told(model) == ("weights are quantized: 60% w4a8-g32, 20% w8a16, 20% as they were",)
    assert told(nn.Sequential(nn.Linear(2, 2), PlainLinear([weight], None))) == ()
