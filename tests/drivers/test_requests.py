"""One inference as a driver sees it: defaults that ask for nothing special."""

from __future__ import annotations

import dataclasses

import pytest

from llmos.drivers import contract, requests
from llmos.syscalls.errors import BadArgument


def test_the_contract_shows_every_class() -> None:
    for name, made in vars(requests).items():
        if isinstance(made, type) and made.__module__ == requests.__name__:
            assert getattr(contract, name) is made


def test_a_request_asks_for_the_models_own_task_with_no_options() -> None:
    request = requests.Request("r", "m", requests.Prompt(text="x"))
    assert (request.task, request.options, request.embed, request.stream) == ("auto", {}, None, False)
    with pytest.raises(dataclasses.FrozenInstanceError):
        request.task = "other"  # type: ignore[misc]


def test_options_that_no_task_knows_are_refused() -> None:
    requests.Request("r", "m", requests.Prompt(text="x")).refuse_options()
    with pytest.raises(BadArgument, match="takes no options, not 'top_k'") as error:
        requests.Request("r", "m", requests.Prompt(text="x"), "t", options={"top_k": 1}).refuse_options()
    assert error.value.name == "top_k"
