"""The command: a table or JSON, and an exit status by the result."""

from __future__ import annotations

import json

import pytest
from llmos.drivers.conformance.__main__ import main


def test_the_command_prints_a_table_and_exits_by_the_result(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["null0"]) == 0
    assert capsys.readouterr().out.startswith("null0 (device)\n  holds        facts")
    assert main(["null0", "--set", "faults=['fault @start']", "--limit", "30"]) == 1
    assert "FAILS" in capsys.readouterr().out


def test_the_command_prints_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["null0", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["holds"] and report["checks"][0]["verdict"] == "holds"


def test_a_setting_that_is_no_toml_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["null0", "--set", "colour=red"])
    assert caught.value.code == 2
    assert "text needs quotes" in capsys.readouterr().err
