"""The shell: lines with pipes and files, scripts, and a real terminal."""

from __future__ import annotations

import contextlib
import io
import os
import pty
import re
import select
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmos.userland.cli.cli import Cli
from llmos.userland.cli.out import Out
from llmos.userland.cli.parser import UsageError
from llmos.userland.cli.shell import Line, Shell, converse, script, split


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", Line([])), ("ps", Line(["ps"])), ('run tiny "a | b > c"', Line(["run", "tiny", "a | b > c"])),
        ("ps | grep x | wc -l", Line(["ps"], pipe="grep x | wc -l")), ("ps > a.txt", Line(["ps"], file="a.txt")),
        ("ps >> 'a b'", Line(["ps"], file="a b", append=True)), ("ls|cat", Line(["ls"], pipe="cat")),
        ("run tiny it\\'s", Line(["run", "tiny", "it's"])), ('run tiny "|"', Line(["run", "tiny", "|"])),
        ("run tiny '>' \\>", Line(["run", "tiny", ">", ">"])), ("ps>a", Line(["ps"], file="a")),
        ("""run tiny "a|b" 'it > "' | grep "c|d" """, Line(["run", "tiny", "a|b", 'it > "'], pipe='grep "c|d"')),
    ],
)  # fmt: skip
def test_a_line_is_taken_apart(text: str, line: Line) -> None:
    assert split(text) == line


@pytest.mark.parametrize(
    "text", ['run "tiny', "ps |", "ps >", "ps > a b", "ps | ", "ps > a | cat", "ps > a|b", "ps > a > b"]
)
def test_what_cannot_be_taken_apart_is_explained(text: str) -> None:
    with pytest.raises(UsageError):
        split(text)


@given(st.text(max_size=40))
def test_any_line_is_taken_apart_or_explained(text: str) -> None:
    with contextlib.suppress(UsageError):
        split(text)


@pytest.fixture
def shell(system: Any) -> Any:
    target = io.StringIO()
    return Shell(Cli(Out(target=target), system))


def test_output_goes_to_a_file_or_into_a_program(shell: Any, folder: Path) -> None:
    assert shell.run(f"ls /models > {folder}/a.txt") == 0
    assert shell.run(f"ls /models >> {folder}/a.txt") == 0
    assert (folder / "a.txt").read_text().count("null") == 2
    assert shell.run(f"ls /models | grep null > {folder}/b.txt") == 0
    assert (folder / "b.txt").read_text() == "null\n"
    assert shell.run("ls /models | true") == 0


def test_statuses_and_hints(shell: Any, capsys: Any, folder: Path) -> None:
    assert shell.run("which models are loaded") == 2
    assert "ask which models are loaded" in capsys.readouterr().err
    assert shell.run("show me the models") == 2
    assert "ask show me the models" in capsys.readouterr().err
    assert shell.run("load") == 2
    assert "ask" not in capsys.readouterr().err
    assert shell.run("stat nothing") == 1
    assert shell.run("stat nothing --json") == 1
    assert '"NotFound"' in capsys.readouterr().err
    assert shell.run(f"ls > {folder}/no/such/folder") == 1
    assert shell.run("serve") == 2
    assert shell.run("ps --help") == 0
    assert shell.run("   ") == 0


def test_what_a_line_opens_lasts(shell: Any, system: Any, folder: Path) -> None:
    assert shell.run("load null -d null0") == 0
    assert shell.run(f"mount file:{folder} /models/here") == 0
    assert any(mount.name == "/models/here" for mount in system.mounts())
    assert shell.run("umount /models/here") == 0
    assert not any(mount.name == "/models/here" for mount in system.mounts())


def test_an_interrupt_ends_the_command_and_not_the_shell(shell: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("llmos.userland.cli.shell.run_command", interrupted)
    assert shell.run("ps") == 130 and not shell.left


def test_a_script_ends_at_the_first_failure_or_exit(shell: Any) -> None:
    assert script(shell, iter(["# comment", "ps", "", "stat nothing", "exit"])) == 1 and not shell.left
    assert script(shell, iter(["ps", "exit", "stat nothing"])) == 0 and shell.left


def test_a_person_leaves_by_exit_or_the_end_of_input(shell: Any) -> None:
    typed = iter([KeyboardInterrupt(), "ps", "stat nothing", EOFError()])

    def read() -> str:
        line = next(typed)
        if isinstance(line, BaseException):
            raise line
        return str(line)

    assert converse(shell, read) == 1


def test_standard_input_is_a_script(kernel: Any) -> None:
    env = {**os.environ, "LLMOS_RUNTIME_DIR": str(kernel.folder)}
    ran = subprocess.run(
        [sys.executable, "-m", "llmos.userland.cli"], input="ls /\nstat nothing\nls /\n", capture_output=True,
        text=True, env=env, check=False,
    )  # fmt: skip
    assert ran.returncode == 1 and ran.stdout.count("models/") == 1


CONTROL = re.compile(rb"\x1b\[[0-9;?]*[A-Za-z]|\x1b[=>]|\r")


class Typist:
    """Somebody at a terminal: types, and reads what appears, without its control sequences."""

    def __init__(self, terminal: int) -> None:
        self.terminal = terminal
        self.raw = b""

    def until(self, text: bytes) -> None:
        while text not in (seen := CONTROL.sub(b"", self.raw)):
            assert select.select([self.terminal], [], [], 30)[0], f"{text!r} did not appear; seen: {seen!r}"
            self.raw += os.read(self.terminal, 65536)

    def type(self, line: bytes) -> None:
        self.raw = b""
        os.write(self.terminal, line)

    def rest(self) -> None:
        with contextlib.suppress(OSError):
            while os.read(self.terminal, 65536):
                pass


@contextlib.contextmanager
def shell_on_a_terminal(**environ: str) -> Iterator[tuple[Typist, subprocess.Popen[bytes]]]:
    ours, theirs = pty.openpty()
    env = {**os.environ, "TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1", **environ}
    shell = subprocess.Popen(
        [sys.executable, "-m", "llmos.userland.cli"], stdin=theirs, stdout=theirs, stderr=theirs, env=env
    )
    os.close(theirs)
    try:
        yield Typist(ours), shell
    finally:
        shell.kill()
        shell.wait()
        os.close(ours)


def test_the_tour_of_the_readme_begins_as_the_shell_does(root: Path, folder: Path) -> None:
    tour = (root / "README.md").read_text().partition("What `make run` shows")[2].partition("```text\n")[2]
    first = tour.partition("llmos> ")[0].replace("cpu0", "null0").splitlines()
    assert len(first) == 3
    environ = {"LLMOS_HOME": str(folder), "LLMOS_RUNTIME_DIR": str(folder / "none"), "COLUMNS": "200"}
    with shell_on_a_terminal(**environ, LLMOS_LOAD_DRIVERS="null0,models") as (typist, shell):
        for line in first:
            typist.until(line.encode())
        typist.until(b"llmos>")
        typist.type(b"exit\r")
        typist.rest()
        assert shell.wait(30) == 0


def test_on_a_terminal(kernel: Any, system: Any) -> None:
    """A greeting that says what is loaded, completion with Tab, an answer, and the way out."""
    system.load_model("/models/null", device="null0", name="fox")
    with shell_on_a_terminal(LLMOS_RUNTIME_DIR=str(kernel.folder)) as (typist, shell):
        typist.until(b"Models: fox on null0")
        typist.until(b"llmos>")
        typist.type(b"unload f\t")
        typist.until(b"unload fox")
        typist.type(b"\r")
        typist.until(b"fox is unloaded")
        typist.until(b"llmos>")
        typist.type(b"exit\r")
        typist.rest()
        assert shell.wait(30) == 0
