"""Reports of runs on the command line, on a real kernel with the null device."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tuning_reports
from llmos.userland.cli.commands import reporting
from llmos.userland.reports import pictures


@pytest.fixture
def here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(folder)
    (folder / "data.jsonl").write_text("".join(f'{{"text": "line {n}"}}\n' for n in range(80)))
    return folder


def ran_once(llmos: Any, name: str) -> str:
    *_, result = llmos(f"tune null ./data.jsonl {name} --json --device null0").out.splitlines()
    assert llmos(f"rm /models/{name}").status == 0
    found: str = json.loads(result)["value"]["run"]
    return found


def test_a_run_without_a_report_says_why(llmos: Any, here: Path) -> None:
    name = ran_once(llmos, "mine")
    ran = llmos(f"runs {name} --report ./report")
    assert ran.status == 1 and f"{name} has no report" in ran.err and "--eval-fraction" in ran.err
    assert not (here / "report").exists()
    ran = llmos(f"runs {name} {name} --report ./report")
    assert ran.status != 0 and "the report of one run" in ran.err


class Out:
    """Takes down what is printed."""

    as_json = False

    def __init__(self) -> None:
        self.lines: list[str] = []

    def line(self, text: str) -> None:
        self.lines.append(text)

    def result(self, _value: object) -> bool:
        return False


class Shown:
    def __init__(self) -> None:
        self.out = Out()


def test_files_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "available", lambda: False)
    cli: Any = Shown()
    assert reporting.write(cli, [tuning_reports.run()], {}, str(tmp_path / "r")) == 0
    assert cli.out.lines[0].startswith(f"{tmp_path / 'r' / 'report.html'}, report.txt, report.json")
    assert (tmp_path / "r" / "report.html").exists() and "install llmos[plots]" in cli.out.lines[1]


def test_the_short_version_and_runs_beside_each_other() -> None:
    cli: Any = Shown()
    one, other = tuning_reports.run(), {**tuning_reports.run(items=40), "id": "t-1-8"}
    reporting.show(cli, one)
    assert any(line.startswith("accuracy") for line in cli.out.lines) and "ROC" not in "".join(cli.out.lines)
    cli = Shown()
    reporting.compare(cli, [one, other])
    assert cli.out.lines[0].split() == ["held", "out,", "after", "t-1-7", "t-1-8"]
    assert sum(line.startswith("f1 macro") for line in cli.out.lines) == 1
    for few in ([one], [one, {**other, "facts": {}}]):
        cli = Shown()
        reporting.compare(cli, few)
        assert cli.out.lines == []


def test_lists_are_without_what_is_long() -> None:
    run = {**tuning_reports.run(), "curve": [1, 2]}
    short = reporting.shorter(run)
    assert "curve" not in short and short["facts"] == {} and short["id"] == "t-1-7"
