"""why and alerts: on a real kernel, every number against its source."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llmos.syscalls.types import Alert, ObjectInfo, Reason
from llmos.userland import boot
from llmos.userland.cli import text
from llmos.userland.cli.commands.explaining import alerts, details, figure, label, once_each, why
from llmos.userland.cli.out import Out


@pytest.fixture
def loaded(system: Any) -> Any:
    return system.load_model("/models/null", device="null0", name="fox")


def test_a_reason_that_came_several_times_is_shown_once() -> None:
    def reason(text: str, at: float, code: str = "x") -> Reason:
        return Reason(code=code, text=text, at=at)

    line = reason("^^^", 1, "program")
    shown = once_each([reason("now", 0), reason("a", 3), reason("b", 2), reason("a", 1), line, line])
    assert [(found.text, found.at, times) for found, times in shown] == [
        ("^^^", 1, 1), ("^^^", 1, 1), ("b", 2, 1), ("a", 3, 2), ("now", 0, 1)
    ]  # fmt: skip


def test_numbers_have_the_units_that_their_names_tell() -> None:
    shown = {name: figure(name, value) for name, value in (
        ("needed", 2048), ("weights_bytes", 1 << 20), ("waited_s", 1.5), ("seconds", 2.5), ("waiting", 3),
        ("gain_seconds", -6.0), ("evicted", 3), ("kv_usage", 0.95), ("what", "tokens"), ("bytes", 7), ("idle_s", 0.25),
        ("retry_after_ms", 11_924), ("keep_alive_s", -1), ("tokens_per_s", 41.25),
    )}  # fmt: skip
    assert shown == {
        "needed": "2.0 KiB", "weights_bytes": "1.0 MiB", "waited_s": "1.5 s", "seconds": "2.5 s", "waiting": "3",
        "gain_seconds": "-6.0 s", "evicted": "3", "kv_usage": "0.95", "what": "tokens", "bytes": "7 B",
        "idle_s": "250 ms", "retry_after_ms": "11.9 s", "keep_alive_s": "forever", "tokens_per_s": "41.25/s",
    }  # fmt: skip
    named = ("idle_s", "weights_bytes", "retry_after_ms", "tokens_per_s", "bytes", "slots")
    assert [label(name) for name in named] == ["idle", "weights", "retry after", "tokens", "bytes", "slots"]
    assert details(Reason(code="c", text="t")) == []
    full = Reason(code="c", text="t", numbers={"needed": 1024, "slots": 2}, rule="first", change="wait")
    assert details(full) == ["numbers: needed 1.0 KiB, slots 2", "rule: first", "to change it: wait"]


def test_why_gives_the_decisions_with_numbers_rules_and_what_would_change_them(llmos: Any, loaded: Any) -> None:
    llmos("sleep fox")
    llmos("wake fox")
    lines = llmos("why fox").out.splitlines()
    told = [line[21:] for line in lines if line[:4].isdigit()]
    assert told[0].startswith("fox is loaded on null0 in ")
    assert told[1].startswith("fox is put to sleep: 'llmos") and "asked for it (s-" in told[1]
    assert told[2].startswith("fox was asleep and is made ready: 'llmos") and "needs it (r-" in told[2]
    assert any(line.startswith("fox is awake again on null0 in ") for line in told)
    below = [line.strip() for line in lines if not line[:4].isdigit()]
    assert any(line.startswith("numbers: needed ") for line in below)
    assert "to change it: llmos wake NAME" in below
    assert any(line.startswith("now  ") and "the null device has one runner" in line for line in lines)


def test_ids_of_models_are_shown_as_their_names(capsys: Any) -> None:
    said = [Reason(code="x", text="r-1 waits in m-1 (w-1 holds 3 B), not in m-10", at=1.0)]
    fox = ObjectInfo(id="m-1", kind="model", name="fox", state="awake", fields={"weights": "w-1"})
    cli: Any = SimpleNamespace(system=SimpleNamespace(why=lambda _: said, models=lambda: [fox]), out=Out(False))
    assert why(cli, Namespace(object="r-1")) == 0
    assert capsys.readouterr().out.endswith("  r-1 waits in fox (fox holds 3 B), not in m-10\n")


def test_why_leaves_out_what_a_driver_printed_and_says_where_it_is(capsys: Any) -> None:
    said = [Reason(code="x", text="it ended", at=1.0), *(Reason(code="driver", text=line, at=1.0) for line in "ab")]
    for reasons, note in ((said, "2 lines too: llmos logs null0 --level debug"), (said[:2], "one line too: ")):
        cli: Any = SimpleNamespace(
            system=SimpleNamespace(why=lambda _about, told=reasons: told, models=list), out=Out(False)
        )
        assert why(cli, Namespace(object="null0")) == 0
        shown = capsys.readouterr()
        assert "it ended" in shown.out and len(shown.out.splitlines()) == 1 and note in shown.err


def test_the_numbers_of_why_are_those_of_the_ledger(llmos: Any, system: Any) -> None:
    free = system.find("device", "null0").fields["free"]
    model = system.load_model("/models/null", device="null0", name="fox")
    reasons = {each["code"]: each for each in llmos("why fox --json").json}
    admitted = reasons["memory.admitted"]["numbers"]
    planned = sum(row.predicted for row in model.info.bytes)
    assert (admitted["needed"], admitted["free"]) == (planned, free)
    shown = llmos("why fox").out
    assert f"needed {text.size(planned)}, free {text.size(free)}" in shown


def test_the_numbers_of_why_are_those_of_the_answer_of_a_request_that_has_ended(llmos: Any, loaded: Any) -> None:
    answer = loaded.infer("hello", max_tokens=3)
    reasons = {each["code"]: each for each in llmos(f"why {answer.id} --json").json}
    assert list(reasons) == ["request.start", "request.done"], "it did not have to wait"
    done, timing, usage = reasons["request.done"]["numbers"], answer.timing, answer.usage
    assert done == {
        "total_s": timing.total / 1e9, "waited_s": timing.queued / 1e9, "prompt_tokens": usage.prompt_tokens,
        "cached_tokens": usage.cached_tokens, "new_tokens": usage.new_tokens,
    }  # fmt: skip
    start = reasons["request.start"]["numbers"]
    assert start["waited_s"] == pytest.approx(timing.queued / 1e9, abs=1e-9)
    assert start["slots"] == loaded.stat().fields["slots"]
    out = llmos(f"why {answer.id}").out
    assert f"new tokens {usage.new_tokens}" in out and f"total {text.duration(timing.total / 1e9)}" in out


def test_a_refused_request_says_by_which_numbers(llmos: Any, system: Any, loaded: Any) -> None:
    from llmos.syscalls.errors import NoDeviceMemory

    device = system.find("device", "null0")
    free, wanted = device.fields["free"], device.bytes + 1
    with pytest.raises(NoDeviceMemory) as raised:
        system.lease(wanted, device="null0")
    reasons = {each["code"]: each for each in llmos(f"why {raised.value.request} --json").json}
    refused = reasons["memory.refused"]["numbers"]
    error = raised.value
    assert (refused["needed"], refused["free"], refused["evictable"]) == (error.needed, error.free, error.evictable)
    assert (error.needed, error.free, error.evictable) == (wanted, free, loaded.stat().bytes)
    ended = reasons["request.refused"]
    assert ended["numbers"]["needed"] == wanted and ended["rule"] == "NoDeviceMemory" and ended["change"]
    about_device = [each["code"] for each in llmos("why null0 --json").json]
    assert "memory.refused" in about_device


def test_a_restart_is_counted_as_the_driver_counts_it(folder: Path) -> None:
    with boot(drivers=["null0"], home=folder) as system:
        driver = system.find("driver", "null0")
        before = driver.fields["pid"]
        system.control(driver.handle, "restart")
        while system.find("driver", "null0").fields["pid"] in (0, before):
            pass
        system.lease(1, device="null0")
        (info,) = system.drivers()
        told = [reason for reason in system.why("null0") if reason.code == "driver.restart"]
        assert len(told) == info.fields["restarts"] == 1


def test_alerts(llmos: Any, capsys: Any) -> None:
    assert "no alert is raised" in llmos("alerts").out and llmos("alerts --json").json == []
    alert = Alert(rule="hot", about="fox", severity="error", text="latency of fox is 3", value=3, limit=2, since=1.0)
    cli: Any = SimpleNamespace(system=SimpleNamespace(alerts=lambda: [alert]), out=Out(False))
    assert alerts(cli, Namespace()) == 0
    assert "latency of fox is 3" in capsys.readouterr().out
