"""The kit as a whole, with real processes: what hangs or crashes costs one check."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from llmos.drivers.conformance import Report, Verdict, check

ABSENT = {"inspect: tells what serves each op, and refuses what it knows nothing of"}
"""What the null device does not offer: it has no ops."""
LOAD = "load: reports progress and describes the model"


def failed(report: Report) -> Mapping[str, str]:
    return {finding.check: finding.text for finding in report.findings if finding.verdict is Verdict.FAILS}


def absent(report: Report) -> set[str]:
    return {finding.check for finding in report.findings if finding.verdict is Verdict.ABSENT}


def test_the_null_device_keeps_the_contract() -> None:
    report = check("null0")
    assert (report.kind, failed(report), absent(report)) == ("device", {}, ABSENT)


def test_the_models_file_system_keeps_the_contract() -> None:
    report = check("models")
    assert (report.kind, failed(report)) == ("filesystem", {})
    assert not {check for check in absent(report) if check.startswith(("bring", "send", "stage", "locate"))}


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        ("hang busy @load", "it took longer than 3 s and was killed"),
        ("crash kill @load", "the process ended with SIGKILL"),
        ("crash 9 @load", "the process ended with status 9"),
        ("fault @load", "the process ended with status 1: RuntimeError: the null device was told to fail"),
        ("oom @load", "it raised NoDeviceMemory: the null device was told to have no memory left"),
    ],
)
def test_one_fault_costs_one_check(folder: Path, fault: str, text: str) -> None:
    report = check("null0", config={"faults": [fault], "once": str(folder / "marker")}, limit_s=3)
    assert failed(report) == {LOAD: text}
    assert not report.holds and absent(report) == ABSENT


def test_what_a_driver_prints_does_not_disturb_the_report() -> None:
    assert check("null0", config={"faults": ["noisy 100000 @start"]}).holds


@pytest.mark.parametrize(
    ("name", "config", "text"),
    [
        ("nobody", {}, "NotFound"),
        ("null0", {"fualts": []}, "driver null0 has no setting 'fualts'; did you mean 'faults'?"),
        ("null0", {"faults": ["fault @start"]}, "RuntimeError"),
        ("null0", {"faults": ["crash 5 @start"]}, "status 5"),
        ("null0", {"faults": ["hang @start"]}, "longer than 3 s"),
    ],
)
def test_a_driver_that_does_not_start(name: str, config: dict[str, Any], text: str) -> None:
    report = check(name, config=config, limit_s=3)
    assert (report.kind, report.holds) == ("", False)
    assert text in failed(report)["it can be loaded and started"]


def test_a_package_is_found_in_the_environment_that_is_given(package: Callable[..., Any]) -> None:
    source = """
        from llmos.drivers.devices.null import NullDevice
        from llmos.drivers.hookspecs import hookimpl

        class Broken(NullDevice):
            def submit(self, request):
                while request.sampling.seed == 7:
                    pass
                super().submit(request)

        @hookimpl
        def register_devices(register):
            register("broken9", Broken)
    """
    environ = {**os.environ, **package("broken9", source).environ}
    report = check("broken9", environ=environ, limit_s=1)
    assert failed(report) == {"seed: the same answer twice at temperature 1": "it took longer than 1 s and was killed"}
    assert not any("broken9" in line for line in Path("/proc/self/environ").read_text().split("\0"))


@pytest.mark.slow
def test_a_model_and_a_source_can_be_given(folder: Path) -> None:
    model = folder / "mine"
    model.mkdir()
    (model / "manifest.json").write_text(json.dumps({"null": {"faults": ["oom"]}}))
    (model / "config.json").write_text("{}")
    assert "NoDeviceMemory" in failed(check("null0", model=str(model)))[LOAD]
    assert "NotFound" in failed(check("models", source=str(folder / "nothing")))["it can be loaded and started"]


