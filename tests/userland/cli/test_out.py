"""What is printed, for people and for programs."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest

from llmos.syscalls.errors import Busy, NotFound, PeerGone
from llmos.syscalls.types import Data, Entry, Right
from llmos.userland.cli.out import Out, safe, show_error
from llmos.userland.link import NoKernel


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def out(as_json: bool = False, terminal: bool = False) -> tuple[Out, io.StringIO]:
    target = Terminal() if terminal else io.StringIO()
    return Out(as_json, target), target


def test_json_is_exactly_the_result_on_one_line() -> None:
    o, target = out(as_json=True)
    assert o.result([Entry(path="/ü", kind="file")])
    assert json.loads(target.getvalue())[0]["path"] == "/ü"
    assert target.getvalue().count("\n") == 1
    assert o.result({"rights": frozenset({Right.READ}), "data": Data(data=b"ab", eof=True)})
    assert not out()[0].result("x")


def test_tables_are_aligned_and_plain_away_from_a_terminal() -> None:
    o, target = out()
    o.table(("NAME", ">SIZE"), [("a", 1), ("long name", None)])
    lines = target.getvalue().splitlines()
    assert lines[0].split() == ["NAME", "SIZE"] and lines[1].rstrip().endswith("1")
    assert "\x1b" not in target.getvalue() and "None" not in target.getvalue()
    o.table(("NAME",), [], "there is none")
    assert "there is none" in target.getvalue()


def test_a_page_is_wrapped_between_words_where_a_person_watches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    page = "\n".join(
        (
            "short", "", "    infer(model, input, task='auto', sampling=Sampling())",
            "  -t, --top N  words that go on for longer than the line", f"  {'x' * 60}",
        )
    )  # fmt: skip
    o, target = out(terminal=True)
    o.page(page)
    assert target.getvalue().splitlines() == [
        "short", "", "    infer(model, input, task='auto',", "        sampling=Sampling())",
        "  -t, --top N  words that go on for", "               longer than the line", f"  {'x' * 60}",
    ]  # fmt: skip
    o, target = out()
    o.page(page)
    assert target.getvalue() == f"{page}\n"


def test_states_are_coloured_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    o, target = out(terminal=True)
    o.table(("STATE",), [("ready",), ("failed",)])
    assert "\x1b[" in target.getvalue() and "ready" in target.getvalue()


def test_nothing_a_model_or_a_name_says_controls_the_terminal() -> None:
    evil = "a\x1b[2Jb\x9bc\x07"
    assert safe(evil) == "a\\x1b[2Jb\\x9bc\\x07" and safe("ü\n\t") == "ü\n\t"
    o, target = out(terminal=True)
    o.said(evil)
    o.bytes(evil.encode())
    o.pairs([("name", evil)])
    o.table(("NAME",), [(evil,)])
    assert "\x1b[2J" not in target.getvalue() and "\x07" not in target.getvalue()
    plain, target = out()
    plain.said(evil)
    assert target.getvalue() == evil


def test_bytes_go_out_as_they_are() -> None:
    raw = io.BytesIO()
    o = Out(target=io.TextIOWrapper(raw, "utf-8"))
    o.bytes(b"\xff\x00x")
    assert raw.getvalue() == b"\xff\x00x"
    text, target = out()
    text.bytes(b"\xffx")
    assert target.getvalue() == "\ufffdx"


def test_pairs_leave_out_what_is_empty() -> None:
    o, target = out()
    o.pairs([("a", 1), ("b", ""), ("c", None), ("dd", 0)])
    assert target.getvalue() == "a   1\ndd  0\n"


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (NotFound("there is no x"), "llmos: there is no x\n"),
        (Busy("in use", retry_after_ms=1500), "llmos: in use\n  try again in 1.5 s\n"),
        (PeerGone("gone", tokens_done=3), "llmos: gone\n  3 tokens had been delivered\n"),
        (NotFound("no", reasons=[{"text": "so it is"}]), "llmos: no\n  because so it is\n"),
        (NotFound("no: so it is; try x", reasons=[{"text": "so it is"}]), "llmos: no: so it is; try x\n"),
        (FileNotFoundError(2, "No such file or directory", "x.txt"), "llmos: x.txt: No such file or directory\n"),
    ],
)
def test_errors_for_people(error: Any, says: str, capsys: Any) -> None:
    show_error(error, as_json=False)
    assert capsys.readouterr().err == says


def test_errors_for_programs(capsys: Any) -> None:
    show_error(Busy("in use", retry_after_ms=7), as_json=True)
    assert json.loads(capsys.readouterr().err) == {
        "error": {"code": 22, "name": "Busy", "message": "in use", "fields": {"retry_after_ms": 7}}
    }
    show_error(NoKernel("ipc://x", "nobody"), as_json=True)
    assert json.loads(capsys.readouterr().err)["error"]["name"] == "NoKernel"


def test_notes_are_for_people_only(capsys: Any) -> None:
    out()[0].note("by the way")
    out(as_json=True)[0].note("not this")
    assert capsys.readouterr().err == "by the way\n"
