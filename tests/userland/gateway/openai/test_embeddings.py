"""Inputs and vectors."""

from __future__ import annotations

from array import array

import pytest

from llmos.syscalls.errors import BadArgument, NotSupported
from llmos.syscalls.types import Embeddings, Inference, TensorOut, Text, Tokens
from llmos.userland.gateway.openai.embeddings import cut, inputs_of, vector


def test_inputs() -> None:
    assert inputs_of("x") == [Text(text="x")] and inputs_of([1, 2]) == [Tokens(ids=[1, 2])]
    assert inputs_of(["a", [1]]) == [Text(text="a"), Tokens(ids=[1])]
    for given in ([], [{"a": 1}], ["x"] * 2049):
        with pytest.raises(BadArgument):
            inputs_of(given)


def test_vectors() -> None:
    data = array("f", [1.0, -2.5]).tobytes()
    found = Embeddings(tensor=TensorOut(dtype="float32", shape=[1, 2], data=data))
    assert list(vector(Inference(id="r", task="t", model_version="1", result=found))) == [1.0, -2.5]
    with pytest.raises(NotSupported):
        vector(Inference(id="r", task="t", model_version="1"))


def test_the_first_dimensions_have_length_one() -> None:
    assert list(cut(array("f", [3.0, 4.0, 100.0]), 2)) == pytest.approx([0.6, 0.8])
    assert list(cut(array("f", [0.0, 0.0]), 1)) == [0.0]
    with pytest.raises(BadArgument) as raised:
        cut(array("f", [1.0]), 2)
    assert raised.value.name == "dimensions"
