"""ps, devices, drivers, sessions, tasks, stat, logs, metrics, events: on a real kernel."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from typing import Any

import pytest

from llmos.userland.cli.commands.looking import device_row, measured, model_row
from llmos.syscalls.types import Metric, ObjectInfo


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


def test_stat_and_why_of_nothing(llmos: Any) -> None:
    for command in ("stat", "why"):
        ran = llmos(f"{command} nobody")
        assert ran.status == 1 and "'nobody'" in ran.err and "see ps" in ran.err


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
