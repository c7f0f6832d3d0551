"""The surroundings of a command: which kernel it joins, or starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llmos.syscalls.errors import BadArgument, NotFound
from llmos.userland.cli.cli import ALONE, Cli
from llmos.userland.cli.out import Out
from llmos.userland.cli.table import COMMANDS
from llmos.userland.link import NoKernel


def test_it_joins_the_running_kernel(kernel: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMOS_RUNTIME_DIR", str(kernel.folder))
    with Cli(Out(), may_boot=True) as cli:
        assert cli.system.stat().fields["pid"] == kernel.pid and not cli.private


def test_the_home_is_that_of_the_running_kernel_where_the_environment_names_none(
    kernel: Any, monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    monkeypatch.setenv("LLMOS_RUNTIME_DIR", str(kernel.folder))
    monkeypatch.delenv("LLMOS_HOME", raising=False)
    with Cli(Out()) as cli:
        assert cli.home() == Path(cli.system.stat().fields["home"]) != Path("~/.llmos").expanduser()
    monkeypatch.setenv("LLMOS_HOME", str(folder))
    assert Cli(Out()).home() == folder
    monkeypatch.delenv("LLMOS_HOME")
    monkeypatch.setenv("LLMOS_RUNTIME_DIR", str(folder))
    assert Cli(Out()).home() == Path("~/.llmos").expanduser()


def test_without_one_it_says_so_or_starts_a_private_one(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setenv("LLMOS_RUNTIME_DIR", str(folder))
    monkeypatch.setenv("LLMOS_HOME", str(folder / "home"))
    monkeypatch.setenv("LLMOS_LOAD_DRIVERS", "null0")
    with pytest.raises(NoKernel), Cli(Out()) as cli:
        _ = cli.system
    with Cli(Out(), may_boot=True) as cli:
        assert cli.system.devices() and cli.private
    assert "this one is private" in capsys.readouterr().err


def test_a_path_is_of_the_namespace_or_of_this_machine(folder: Path, system: Any) -> None:
    cli = Cli(Out(), system)
    assert cli.path("/home/a") == "/home/a"
    (folder / "models").mkdir()
    assert cli.path(f"file:{folder}/models") == "/mnt/models"
    (folder / "a.txt").write_text("x")
    with pytest.raises(NotFound, match=r"a\.txt on this machine: it is a file"):
        cli.path(f"file:{folder}/a.txt")
    with pytest.raises(BadArgument, match=r"write /a.txt for the namespace .*, ./a.txt for this machine"):
        cli.path("a.txt")


def test_a_system_of_somebody_else_stays_open(system: Any) -> None:
    with Cli(Out(), system) as cli:
        other = cli.with_out(Out(as_json=True))
        assert other.in_shell and other.out.as_json and not cli.in_shell
        other.close()
    assert system.stat()


def test_a_bare_name_is_of_models(system: Any, folder: Path) -> None:
    cli = Cli(Out(), system)
    assert cli.stored("null") == cli.stored("/models/null") == "/models/null"
    (folder / "mine").mkdir()
    assert cli.stored(f"file:{folder}/mine").startswith("/mnt/")


def test_nobody_to_ask_is_a_no() -> None:
    assert not Cli(Out()).confirm("really?")
    assert Cli(Out(), ask=lambda question: " Yes ").confirm("really?")
    assert not Cli(Out(), ask=lambda question: "").confirm("really?")


def test_commands_that_stand_alone_are_commands() -> None:
    assert {command.name for command in COMMANDS} >= ALONE
