"""What config.json says about quantized weights is read as it was written, and what is wrong with it is said."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llmos.drivers.engine.quantized.folder import Quantized, read
from llmos.drivers.ops.quantized import Scheme
from llmos.syscalls.errors import BadModel

GIVEN = Quantized({"model.a": Scheme(4, 32, shift=True), "lm_head": Scheme(8, 0, "float")}, "int8")


def test_it_is_read_as_it_was_written() -> None:
    assert read("/models/m", json.loads(json.dumps(GIVEN.as_config()))) == GIVEN


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"version": 2}, "version is 2"),
        ({"activations": "int3"}, "activations are 'int3'"),
        ({"modules": {}}, "names no modules"),
        ({"modules": None}, "names no modules"),
        ({"modules": {"x": {"width": 5}}}, "the scheme of x"),
        ({"modules": {"x": {"colour": 5}}}, "the scheme of x"),
        ({"modules": {"x": 4}}, "the scheme of x"),
    ],
)
def test_what_is_wrong_is_said(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(BadModel, match=said) as caught:
        read("/models/m", {**GIVEN.as_config(), **changes})
    assert caught.value.file == "config.json"
