"""Plain Python becomes the types of the contract, and every field of these can be said as a keyword."""

from __future__ import annotations

from typing import Any, get_type_hints

import pytest

from llmos.syscalls.errors import BadArgument
from llmos.syscalls.spec import COMMON_ARGUMENTS
from llmos.syscalls.types import LoadOptions, Quant, Sampling
from llmos.userland.options import (
    DEFAULT_LOAD, DEFAULT_SAMPLING, CallOptions, LoadFields, SamplingOptions, deadline_in, fill, quant_named,
    sampling_of_model, split,
)  # fmt: skip


def test_the_keywords_are_the_fields_of_the_types() -> None:
    assert set(get_type_hints(SamplingOptions)) == set(Sampling.__struct_fields__)
    assert set(get_type_hints(LoadFields)) == set(LoadOptions.__struct_fields__) - {"dry_run"}
    assert set(get_type_hints(CallOptions)) == {*COMMON_ARGUMENTS, "timeout"} - {"deadline"}


def test_fields_are_filled_over_a_base() -> None:
    base = Sampling(max_tokens=5, seed=1)
    assert fill(base, {"seed": 2, "stop": "x"}, "infer") == Sampling(max_tokens=5, seed=2, stop=["x"])
    assert fill(base, {}, "infer") is base
    assert fill(DEFAULT_SAMPLING, {"grammar": {"regex": "a"}}, "infer").grammar.regex == "a"  # type: ignore[union-attr]
    assert fill(DEFAULT_LOAD, {"quant": {"width": 4}}, "load").quant.width == 4  # type: ignore[union-attr]
    with pytest.raises(BadArgument, match="did you mean temperature"):
        fill(base, {"temprature": 1}, "infer")
    with pytest.raises(BadArgument, match="grammar"):
        fill(base, {"grammar": {"regexp": "a"}}, "infer")


@pytest.mark.parametrize(
    ("name", "quant"),
    [
        ("w8", Quant()), ("w4", Quant(width=4)), ("w4a16-g64", Quant(width=4, group=64, activations="model")),
        ("w8a8-g0", Quant(group=0, activations="int8")), ("fp8", Quant(kind="float", group=0)),
        ("fp8-g32", Quant(kind="float", group=32)),
    ],
)  # fmt: skip
def test_a_short_name_is_a_way_to_quantize(name: str, quant: Quant) -> None:
    assert quant_named(name) == quant == fill(DEFAULT_LOAD, {"quant": name}, "load").quant


@pytest.mark.parametrize("name", ["", "w5", "w4a4", "W4", "w4-g16", "fp4", "w4 "])
def test_other_names_are_refused_with_what_there_is(name: str) -> None:
    with pytest.raises(BadArgument, match="write w4, w8"):
        quant_named(name)


def test_arguments_of_the_request_are_told_from_fields() -> None:
    assert split({"timeout": 1, "max_tokens": 2, "key": "k"}) == ({"timeout": 1, "key": "k"}, {"max_tokens": 2})


def test_deadlines() -> None:
    assert deadline_in(None) is None
    first, second = deadline_in(1), deadline_in(2)
    assert first is not None and second is not None and second - first > 900_000_000


@pytest.mark.parametrize(
    ("config", "sampling"),
    [
        ({}, Sampling()),
        ({"do_sample": False, "temperature": 0.7, "max_new_tokens": 9}, Sampling(max_tokens=9)),
        ({"do_sample": True}, Sampling(temperature=1.0, top_k=50)),
        ({"do_sample": True, "temperature": 0.6, "top_k": None, "top_p": 0.9}, Sampling(temperature=0.6, top_p=0.9)),
        ({"repetition_penalty": 1.1, "num_beams": 4}, Sampling(repetition_penalty=1.1, beams=4)),
    ],
)
def test_generation_settings_of_a_model(config: dict[str, Any], sampling: Sampling) -> None:
    assert sampling_of_model(config) == sampling
