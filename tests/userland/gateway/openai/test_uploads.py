"""Forms with a file."""

from __future__ import annotations

import pytest
from starlette.datastructures import FormData

from llmos.syscalls.errors import BadArgument
from llmos.userland.gateway.openai.uploads import file_of, text_of


def test_fields() -> None:
    form = FormData([("a", "x")])
    assert text_of(form, "a") == "x" and text_of(form, "b", "y") == "y"
    with pytest.raises(BadArgument) as raised:
        file_of(form, "a")
    assert raised.value.name == "a"
