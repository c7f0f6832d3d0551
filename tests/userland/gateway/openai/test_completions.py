"""Prompts of completions."""

from __future__ import annotations

import pytest

from llmos.syscalls.errors import BadArgument
from llmos.syscalls.types import Text, Tokens
from llmos.userland.gateway.openai.completions import MOST_PROMPTS, prompts_of


def test_prompts() -> None:
    assert prompts_of("x") == [Text(text="x")] and prompts_of("") == [Text(text="")]
    assert prompts_of([1, 2]) == [Tokens(ids=[1, 2])]
    assert prompts_of(["a", "b"]) == [Text(text="a"), Text(text="b")]
    assert prompts_of([[1], [2, 3]]) == [Tokens(ids=[1]), Tokens(ids=[2, 3])]
    assert prompts_of(["a", [1]]) == [Text(text="a"), Tokens(ids=[1])]


@pytest.mark.parametrize("given", [[], [True], [["x"]], [None], ["a"] * (MOST_PROMPTS + 1), [{"a": 1}]])
def test_what_is_no_prompt(given: list[object]) -> None:
    with pytest.raises(BadArgument) as raised:
        prompts_of(given)
    assert raised.value.name == "prompt"
