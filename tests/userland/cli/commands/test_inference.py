"""run and ask: answers, streams, chats, confirmations; on a real kernel with the null device, which echoes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llmos.userland.cli import asking
from llmos.userland.cli.asking import Refusal, Suggestion
from llmos.userland.cli.cli import Cli
from llmos.userland.cli.commands import inference
from llmos.userland.cli.out import Out
from llmos.userland.cli.parser import parse_line, parse_words


@pytest.fixture(autouse=True)
def fox(system: Any) -> Any:
    return system.load_model("/models/null", device="null0", name="fox")


def test_one_answer(llmos: Any) -> None:
    assert llmos("run fox good morning").out == "good morning\n"
    assert llmos("run fox good morning --no-stream").out == "good morning\n"
    ran = llmos("run fox good morning --stats -m 4")
    assert "tokens/s" in ran.err and "ended by length" in ran.err
    assert "because" not in llmos("run fox hi --temperature 0.5 --seed 3 --stop x --work-class batch").err


def test_the_prompt_may_come_from_a_pipe(llmos: Any) -> None:
    assert llmos("run fox", stdin="from a pipe").out == "from a pipe\n"
    ran = llmos("run fox", stdin="\n")
    assert ran.status == 1 and "there is no prompt" in ran.err


def test_json_is_the_chunks_and_then_the_whole(llmos: Any) -> None:
    *chunks, whole = (json.loads(line) for line in llmos("run fox good morning --json").out.splitlines())
    assert "".join(chunk["text"] for chunk in chunks) == whole["choices"][0]["text"] == "good morning"
    assert llmos("run fox hi --no-stream --json").json["choices"][0]["text"] == "hi"


def test_a_bad_option_is_refused_before_and_by_the_kernel(llmos: Any) -> None:
    assert llmos("run fox hi --temperature warm").status == 2
    ran = llmos("run fox hi --top-p 3")
    assert ran.status == 1 and "top_p" in ran.err


def chat(system: Any, lines: list[Any], options: str = "") -> tuple[int, str]:
    """A chat with somebody who types these lines; an exception is what happens instead of one."""
    import io

    target = io.StringIO()
    typed = iter(lines)

    def ask(prompt: str) -> str:
        line = next(typed)
        if isinstance(line, BaseException):
            raise line
        return str(line)

    _command, values = parse_words(["run", "fox", *options.split()])
    return inference.run(Cli(Out(target=target), system, ask), values), target.getvalue()


def test_a_chat_goes_on_until_an_empty_line_or_the_end(system: Any) -> None:
    assert chat(system, ["one", "two", ""])[0] == 0
    status, said = chat(system, ["one", EOFError()])
    assert status == 0 and "one" in said
    assert chat(system, [KeyboardInterrupt()])[0] == 0


def test_each_answer_of_a_chat_sees_what_was_said_before(system: Any) -> None:
    _, said = chat(system, ["one", "two", ""], "--max-tokens 500")
    first, second = said.splitlines()[0], said.splitlines()[-1]
    assert "one" in first and "two" in second


def test_a_failure_does_not_end_a_chat(system: Any, capsys: Any) -> None:
    status, said = chat(system, ["x" * 100_000, "two", ""])
    assert status == 0 and "two" in said
    assert "llmos:" in capsys.readouterr().err


# ---- ask


def answers(monkeypatch: pytest.MonkeyPatch, line: str, confidence: float = 0.9) -> None:
    command, values = parse_line(line)
    found = Suggestion(line, command, values, confidence)
    monkeypatch.setattr(asking, "translate", lambda model, words, limit: found)


def test_a_command_that_changes_nothing_runs_at_once(llmos: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, "ps")
    ran = llmos("ask --model fox which models are loaded")
    assert ran.status == 0 and "fox" in ran.out and "ps   (90% sure)" in ran.err
    assert llmos("ask --model fox which models are loaded --json").json[0]["name"] == "fox"


def test_one_that_changes_something_is_asked_about(llmos: Any, system: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, "sleep fox")
    ran = llmos("ask --model fox put fox to sleep")
    assert ran.status == 1 and "say --yes" in ran.err
    assert system.models()[0].state == "awake"
    assert llmos("ask --model fox put fox to sleep --yes").status == 0
    assert system.models()[0].state == "asleep"


@pytest.mark.parametrize(("said", "state"), [("y", "asleep"), ("", "awake"), ("no", "awake")])
def test_the_answer_decides(system: Any, monkeypatch: pytest.MonkeyPatch, said: str, state: str) -> None:
    answers(monkeypatch, "sleep fox")
    _, values = parse_words(["ask", "--model", "fox", "put fox to sleep"])
    inference.ask(Cli(Out(), system, lambda question: said), values)
    assert system.models()[0].state == state


def test_a_dry_run_only_shows(llmos: Any, system: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, "unload fox")
    assert llmos("ask --model fox away with it --dry-run").out == "unload fox   (90% sure)\n"
    told = llmos("ask --model fox away with it --dry-run --json").json
    assert (told["command"], told["confidence"]) == ("unload fox", 0.9)
    assert len(system.models()) == 1


def test_what_is_not_understood_is_refused_and_nothing_runs(llmos: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "translate", lambda model, words, limit: Refusal("I do not understand", 0.2))
    ran = llmos("ask --model fox what is love")
    assert (ran.status, ran.out) == (1, "") and "I do not understand" in ran.err
    assert llmos("ask --model fox what is love --json").json["command"] is None


def test_an_echo_is_not_understood(llmos: Any) -> None:
    """The null device answers with the question, which is no command."""
    assert "was no command" in llmos("ask --model fox which models are there").err
