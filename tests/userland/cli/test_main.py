"""The program: exit statuses, help, and how little it loads for it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from llmos.userland.cli.commands import handler
from llmos.userland.cli.main import main
from llmos.userland.cli.table import COMMANDS

PROGRAM = [sys.executable, "-m", "llmos.userland.cli"]


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.name != "exit"], ids=lambda command: command.name)
def test_every_command_has_its_function(command: Any) -> None:
    assert callable(handler(command.name))


def test_what_nobody_implements_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        handler("exit")


def test_statuses(llmos: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert llmos("ps").status == 0
    assert llmos("stat nothing").status == 1
    ran = llmos("lod tiny")
    assert ran.status == 2 and "Did you mean load" in ran.err
    assert '"name": "UsageError"' in llmos("lod tiny --json").err
    monkeypatch.setenv("LLMOS_RUNTIME_DIR", str(folder))
    ran = llmos("ps")
    assert ran.status == 1 and "llmos serve" in ran.err


def test_an_interrupt_is_130(llmos: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("llmos.userland.cli.commands.run_command", interrupted)
    assert llmos("ps").status == 130


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["help"], ["load", "--help"], ["--version"]])
def test_help_and_version_need_no_kernel(words: list[str], capsys: Any) -> None:
    assert main(words) == 0
    assert "llmos" in capsys.readouterr().out


def test_a_reader_that_has_enough_is_no_error() -> None:
    shown = subprocess.run(
        ["/bin/sh", "-c", '"$@" help | head -n 1', "sh", *PROGRAM], capture_output=True, text=True, check=True
    )
    assert shown.stdout.count("\n") == 1 and shown.stderr == ""


def test_help_loads_neither_sockets_nor_colours_nor_models() -> None:
    script = (
        "import sys\nfrom llmos.userland.cli.main import main\nmain(['--help'])\n"
        "heavy = {'zmq', 'asyncio', 'rich', 'prompt_toolkit', 'torch', 'transformers'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", script], check=True, stdout=subprocess.DEVNULL)
