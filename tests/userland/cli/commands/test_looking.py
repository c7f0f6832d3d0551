"""ps, devices, drivers, sessions, tasks, stat, why, logs, metrics, events: on a real kernel."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from argparse import Namespace
from types import SimpleNamespace
from typing import Any

import pytest

from llmos.userland.cli.commands.looking import device_row, measured, model_row, once_each, why
from llmos.userland.cli.out import Out
from llmos.syscalls.types import Metric, ObjectInfo, Reason


@pytest.fixture
def loaded(system: Any) -> Any:
    return system.load_model("/models/null", device="null0", name="fox")


def test_ps_lists_what_is_loaded_and_json_is_the_calls_result(llmos: Any, system: Any) -> None:
    assert "no model is loaded" in llmos("ps").out
    assert llmos("ps --json").json == []
    system.load_model("/models/null", device="null0", name="fox", pin=True)
    lines = llmos("ps").out.splitlines()
    assert lines[0].split()[:4] == ["NAME", "ID", "STATE", "DEVICE"]
    assert lines[1].split()[0] == "fox" and "pinned" in lines[1]
    (info,) = llmos("ps --json").json
    assert (info["name"], info["fields"]["device"]) == ("fox", "null0")


@pytest.mark.parametrize(
    ("command", "holds"),
    [("drivers", "filesystem"), ("sessions", "PROGRAM"), ("tasks", "there are no tasks")],
)
def test_listings(llmos: Any, command: str, holds: str) -> None:
    ran = llmos(command)
    assert ran.status == 0 and holds in ran.out
    assert isinstance(llmos(f"{command} --json").json, list)


@pytest.mark.parametrize("name", ["fox", "null0", "driver:null0", "models", "/models/null", "system"])
def test_stat_finds_anything(llmos: Any, loaded: Any, name: str) -> None:
    ran = llmos(f"stat {name}")
    assert (ran.status == 0 and "state" in ran.out) or "path" in ran.out
    assert isinstance(llmos(f"stat {name} --json").json, dict)


def test_stat_shows_figures_as_people_read_them_and_each_name_once(llmos: Any, loaded: Any) -> None:
    lines = llmos("stat null0").out.splitlines()
    shown = {line[:13].strip(): line[13:] for line in lines}
    assert len(shown) == len(lines) and shown["kind"] == "device" and shown["device kind"] == "null"
    assert shown["bytes"] == "1.0 GiB" and shown["free"].endswith("iB") and "memory_bytes" not in shown
    assert "tensors=1" in shown["features"]
    shown = {line[:15].strip(): line[15:] for line in llmos("stat fox").out.splitlines()}
    assert (shown["keep_alive"], shown["used"], shown["pinned"]) == ("forever", "never", "False")
    assert shown["tasks"].startswith("text-generation, ")


def test_logs_and_events_of_nothing_say_what_there_is(llmos: Any, loaded: Any) -> None:
    ran = llmos("logs nobody")
    assert ran.status == 1 and "no records about 'nobody': give the name, id or path of a model, device" in ran.err
    ran = llmos("events nobody")
    assert ran.status == 1 and "nothing is called 'nobody': give the name" in ran.err
    assert "or a kind of events (device, driver, handle, lease, model, session, task)" in ran.err
    assert "'nobody'" in llmos("logs nobody --follow").err
    ran = llmos("logs fox --level error")
    assert (ran.status, ran.out) == (0, "") and "no records about fox of the level error or above" in ran.err


@pytest.mark.parametrize("name", ["fox", "null0", "/models/null"])
def test_logs_take_names_ids_and_paths(llmos: Any, loaded: Any, name: str) -> None:
    assert "null0" in llmos(f"logs {name}").out


def test_a_reason_that_came_several_times_is_shown_once() -> None:
    def reason(text: str, at: float, code: str = "x") -> Reason:
        return Reason(code=code, text=text, at=at)

    line = reason("^^^", 1, "program")
    shown = once_each([reason("now", 0), reason("a", 3), reason("b", 2), reason("a", 1), line, line])
    assert [(found.text, found.at, times) for found, times in shown] == [
        ("^^^", 1, 1), ("^^^", 1, 1), ("b", 2, 1), ("a", 3, 2), ("now", 0, 1)
    ]  # fmt: skip


def test_stat_and_why_of_nothing(llmos: Any) -> None:
    for command in ("stat", "why"):
        ran = llmos(f"{command} nobody")
        assert ran.status == 1 and "'nobody'" in ran.err and "see ps" in ran.err


def test_why_gives_the_decisions(llmos: Any, loaded: Any) -> None:
    llmos("sleep fox")
    llmos("wake fox")
    lines = [line[21:] for line in llmos("why fox").out.splitlines()]
    assert lines[0].startswith("fox is loaded on null0 in ")
    assert lines[1].startswith("fox is put to sleep: 'llmos") and "asked for it (s-" in lines[1]
    assert lines[2].startswith("fox was asleep and is made ready: 'llmos") and "needs it (r-" in lines[2]
    assert lines[3].endswith("  (2 times)") and "of null0" in lines[3]
    assert lines[4].startswith("fox is awake again on null0 in ") and len(lines) == 5
    assert llmos("why fox --json").json[0]["text"]


def test_why_leaves_out_what_a_driver_printed_and_says_where_it_is(capsys: Any) -> None:
    said = [Reason(code="x", text="it ended", at=1.0), *(Reason(code="driver", text=line, at=1.0) for line in "ab")]
    for reasons, note in ((said, "2 lines too: llmos logs null0 --level debug"), (said[:2], "one line too: ")):
        cli: Any = SimpleNamespace(system=SimpleNamespace(why=lambda _about, told=reasons: told), out=Out(False))
        assert why(cli, Namespace(object="null0")) == 0
        shown = capsys.readouterr()
        assert "it ended" in shown.out and len(shown.out.splitlines()) == 1 and note in shown.err


def test_logs_and_metrics(llmos: Any, loaded: Any) -> None:
    assert len(llmos("logs -n 2").out.splitlines()) == 2
    assert "fox" in llmos(f"logs {loaded.info.id}").out
    record = json.loads(llmos("logs -n 1 --json").out)
    assert {"seq", "text"} <= set(record)
    assert "llmos_sessions" in llmos("metrics llmos_sess").out
    assert "llmos_sessions" in llmos("metrics llmos_sess --json").json
    assert "no such metric" in llmos("metrics nothing").out


def test_of_a_histogram_the_mean_is_shown() -> None:
    told = Metric(kind="histogram", value=3.0, buckets={"1": 0, "+Inf": 2})
    assert measured(told) == ("mean of 2", "1.5")
    assert measured(Metric(kind="histogram", value=0.0, buckets={"+Inf": 0})) == ("mean of 0", "")
    assert measured(Metric(kind="gauge", value=4.0)) == ("gauge", "4")


@pytest.mark.parametrize("command", ["events", "events model", "logs --follow"])
def test_following_goes_on_until_it_is_interrupted(llmos: Any, system: Any, kernel: Any, command: str) -> None:
    env = {**os.environ, "LLMOS_RUNTIME_DIR": str(kernel.folder)}
    argv = [sys.executable, "-m", "llmos.userland.cli", *command.split()]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=env) as follower:
        assert follower.stdout is not None
        stop = threading.Event()

        def keep_loading() -> None:
            while not stop.is_set():
                system.load_model("/models/null", device="null0", name="seen").unload()

        loading = threading.Thread(target=keep_loading)
        loading.start()
        try:
            assert any("seen" in line for line in follower.stdout)
        finally:
            stop.set()
            loading.join()
            follower.send_signal(signal.SIGINT)
        follower.stdout.read()
        assert follower.wait() == 130


def test_rows_say_how_long_a_model_is_kept_and_how_full_a_device_is() -> None:
    def kept(**fields: Any) -> Any:
        return model_row(ObjectInfo(id="m", kind="model", name="m", state="awake", fields=fields))[8]

    assert (kept(), kept(keep_alive=90.0), kept(pinned=True)) == ("forever", "1 m 30 s", "pinned")
    info = ObjectInfo(id="d", kind="device", name="d", state="ready", bytes=1 << 30, fields={"free": 1 << 28})
    assert device_row(info)[3:7] == ("1.0 GiB", "768.0 MiB", "256.0 MiB", "75 %")
