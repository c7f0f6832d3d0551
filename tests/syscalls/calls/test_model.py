"""Load, unload, transform."""

from __future__ import annotations

from typing import Any

import pytest
from llmos.syscalls import calls
from llmos.syscalls.errors import BadArgument
from llmos.syscalls.spec import SYSCALLS, check

assert calls.__all__


def made(name: str, **arguments: Any) -> Any:
    return check(SYSCALLS[name], arguments)


def refused(name: str, argument: str, **arguments: Any) -> None:
    with pytest.raises(BadArgument) as raised:
        made(name, **arguments)
    assert raised.value.name == argument


def test_policy_places_a_model_unless_told_where() -> None:
    call = made("load_model", path="/models/tiny")
    assert (call.device, call.base, call.options.dry_run) == (None, None, False)
    assert made("load_model", path="/models/tiny", device=4).device == 4


def test_options_are_checked_in_depth() -> None:
    refused("load_model", "options.quant.width", path="x", options={"quant": {"width": 1}})
    refused("load_model", "options.dtpe", path="x", options={"dtpe": "float32"})


def test_an_unload_is_not_forced_by_default() -> None:
    assert made("unload_model", model=1).force is False
    assert SYSCALLS["unload_model"].handles[0].rights == ("manage",)


def test_a_transformation_says_what_it_does() -> None:
    assert made("transform_model", sources=["/a"], out="/b", recipe={"kind": "quantize"}).recipe.kind == "quantize"
    refused("transform_model", "recipe.kind", sources=["/a"], out="/b", recipe={})
