"""A load of what is loaded already: its settings are taken over, and what is not is said."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from scripted import Inside, Program, inside

from llmos.kernel.session import Peer


@pytest.fixture
def model(program: Program) -> int:
    return program.load("tiny")


def load(program: Program, **options: Any) -> list[str]:
    """Load tiny again; what is said of its settings."""
    answer = program.wait(program.send("load_model", path="/models/tiny", options=options))
    assert answer.error is None
    return [reason["text"] for reason in answer.body["reasons"] if reason["code"] == "model.settings"]


def fields(program: Program, model: int) -> dict[str, Any]:
    found: dict[str, Any] = program.call("stat_object", handle=model)["fields"]
    return found


def test_the_last_word_on_pin_and_keep_alive_wins(kernel: Inside, program: Program, model: int) -> None:
    assert load(program, pin=True, keep_alive=5) == [
        "tiny was loaded already: it is pinned now; keep_alive was -1 s and is 5 s now"
    ]
    assert (fields(program, model)["pinned"], fields(program, model)["keep_alive"]) == (True, 5)
    id = program.call("stat_object", handle=model)["id"]
    assert "model.settings" in [reason.code for reason in kernel.kernel.decisions.of(id)]
    assert load(program, keep_alive=7) == ["tiny was loaded already: keep_alive was 5 s and is 7 s now"]
    program.control(model, "unpin")
    kernel.advance(8)
    assert program.state(model) == "asleep"


def test_what_is_not_said_or_is_so_already_changes_nothing(program: Program, model: int) -> None:
    load(program, pin=True, keep_alive=5)
    assert load(program) == load(program, pin=True, keep_alive=5) == []
    assert (fields(program, model)["pinned"], fields(program, model)["keep_alive"]) == (True, 5)


def test_a_group_is_not_taken_over_and_that_is_said(program: Program, model: int) -> None:
    assert load(program, group="a") == [
        "tiny was loaded already: it stays in no group: unload it to load it with the group a"
    ]
    program.call("unload_model", model=model)
    assert load(program, group="a") == load(program, group="a") == []
    (said,) = load(program, group="!b")
    assert "it stays in its group a: " in said


def test_the_device_of_a_model_that_is_joined_is_not_chosen_again(kernel: Inside, program: Program) -> None:
    first, second = (program.wait(program.send("load_model", path="/models/tiny")) for _ in range(2))
    assert ("device.placed" in first.reasons, "device.placed" in second.reasons) == (True, False)
    told = [reason.code for reason in kernel.kernel.decisions.of(first.value["id"])]
    assert told.count("device.placed") == 1


def test_who_may_not_manage_a_model_changes_nothing_of_it(folder: Path) -> None:
    settings = '[policy.default.handles]\nsystem = "all"\ndevice = "all"\nmodel = ["read", "run", "list"]\n'
    settings += '[policy.default.mounts]\n"/models" = "ro"\n'
    with inside(folder, settings, drivers="null0,models") as kernel:
        owner = kernel.program()
        model = owner.load("tiny")
        stranger = kernel.program(Peer(12345, 12345, os.getpid()))
        stranger.call("list_objects", system=stranger.system, kind="model")
        (said,) = load(stranger, pin=True, keep_alive=5)
        assert said == (
            "tiny was loaded already: it is not pinned: this session may not manage it; "
            "keep_alive was -1 s, and stays so: this session may not manage it"
        )
        assert (fields(owner, model)["pinned"], fields(owner, model)["keep_alive"]) == (False, -1)
