"""What a null model computes, on its own; `test_null.py` sees it through the device."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llmos.drivers.contract import EmbedSettings, Prompt, Request, SamplingParams
from llmos.drivers.devices.null_model import END, WIDTH, Echo, embed, prompt_ids, prompt_text, task_of
from llmos.syscalls.errors import NotSupported


@pytest.mark.parametrize(
    ("prompt", "text", "ids"),
    [
        (Prompt(text="é"), "é", [0xC3, 0xA9]),
        (Prompt(ids=[1, END]), "", [1, END]),
        (Prompt(messages=[{"content": "a"}, {"content": "b"}]), "b", [98]),
    ],
)
def test_prompts(prompt: Prompt, text: str, ids: list[int]) -> None:
    assert prompt_text(prompt) == text
    assert prompt_ids(prompt, text) == ids


def test_tasks() -> None:
    assert task_of(Request("r", "m", Prompt(text="x"))) == "text-generation"
    assert task_of(Request("r", "m", Prompt(text="x"), embed=EmbedSettings())) == "feature-extraction"
    assert task_of(Request("r", "m", Prompt(tensors={}), embed=EmbedSettings())) == "echo"
    with pytest.raises(NotSupported, match="echo, copy"):
        task_of(Request("r", "m", Prompt(tensors={}), task="text-generation"))


@given(st.text("ab", min_size=1, max_size=6), st.integers(0, 20))
def test_an_echo_goes_round_when_it_must_not_end(text: str, count: int) -> None:
    echo = Echo(text.encode(), SamplingParams(max_tokens=count, ignore_eos=True), room=100, stream=False)
    while not echo.done:
        assert echo.advance("r") == []
    assert echo.choices()[0].text == (text * 20)[:count]


def test_an_end_token_in_the_prompt_is_not_echoed() -> None:
    echo = Echo([97, END, 98], SamplingParams(), room=100, stream=False)
    while not echo.done:
        echo.advance("r")
    assert echo.choices()[0].tokens == [97, 98, END]


def test_nothing_to_echo_ends_at_once_or_says_ends() -> None:
    for sampling, tokens in ((SamplingParams(), [END]), (SamplingParams(max_tokens=2, ignore_eos=True), [END, END])):
        echo = Echo([], sampling, room=100, stream=True)
        while not echo.done:
            echo.advance("r")
        assert (echo.choices()[0].tokens, echo.choices()[0].text) == (tokens, "")


def test_a_cancel_says_what_was_held_back() -> None:
    echo = Echo(b"abc", SamplingParams(stop=["bcd"]), room=100, stream=True)
    said = "".join(chunk.text for _ in range(2) for chunk in echo.advance("r"))
    assert said == "a"
    assert [chunk.text for chunk in echo.cancel("r")] == ["b"]
    assert (echo.choices()[0].text, echo.choices()[0].reason) == ("ab", "cancelled")


def test_rows_have_a_width_and_nothing_is_something() -> None:
    rows, cut = embed([], EmbedSettings())
    assert (len(rows), len(rows[0]), cut) == (1, WIDTH, [False])
