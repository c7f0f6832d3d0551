"""Completion and history."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document

from llmos.syscalls.errors import PeerGone
from llmos.userland.cli.cli import Cli
from llmos.userland.cli.out import Out
from llmos.userland.cli.prompt import ShellCompleter, history_file, prompt_session


@pytest.fixture
def complete(system: Any) -> Any:
    system.load_model("/models/null", device="null0", name="fox")
    completer = ShellCompleter(Cli(Out(), system))

    def candidates(text: str) -> list[str]:
        return [c.text.rstrip() for c in completer.get_completions(Document(text), CompleteEvent())]

    return candidates


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("lo", ["load", "logs"]), ("load /mod", ["/models/"]), ("load /models/nu", ["/models/null"]),
        ("load fo", ["fox"]), ("run nu", ["null"]),
        ("load x --dev", ["--device"]), ("load x --device n", ["null0"]), ("load x --dtype f", ["float32", "float16"]),
        ("unload f", ["fox"]), ("driver re", ["restart", "reset"]), ("driver restart nu", ["null0"]),
        ("help unl", ["unload"]), ("xyzzy a", []), ("wait ", []), ('run "a', []), ("stat fo", ["fox"]),
        ("ls --l", ["--long"]), ("run fox --json --te", ["--temperature"]),
    ],
)  # fmt: skip
def test_what_may_come_next(complete: Any, text: str, found: list[str]) -> None:
    assert complete(text) == found


def test_a_space_follows_what_is_whole(system: Any) -> None:
    completer = ShellCompleter(Cli(Out(), system))
    for text, found in (("loa", ["load "]), ("lo", ["load", "logs"]), ("ls /mod", ["/models/"])):
        assert [c.text for c in completer.get_completions(Document(text), CompleteEvent())] == found


def test_files_of_this_machine(complete: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "my-model").mkdir()
    (folder / "my.toml").write_text("")
    monkeypatch.chdir(folder)
    assert complete("load ./my") == ["./my-model/", "./my.toml"]
    assert complete("mount my-m") == ["my-model/"]
    assert complete("serve --config my.") == ["my.toml"]


def test_a_kernel_that_is_gone_completes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone:
        def objects(self, kind: object) -> None:
            raise PeerGone("gone")

        list = objects

    completer = ShellCompleter(Cli(Out(), Gone()))  # type: ignore[arg-type]
    assert list(completer.get_completions(Document("unload x"), CompleteEvent())) == []


def test_history_lies_in_the_home_folder(folder: Path, monkeypatch: pytest.MonkeyPatch, system: Any) -> None:
    monkeypatch.setenv("LLMOS_HOME", str(folder / "home"))
    assert history_file() == folder / "home/history"
    session = prompt_session(Cli(Out(), system))
    session.history.append_string("ps")
    assert "ps" in (folder / "home/history").read_text()
