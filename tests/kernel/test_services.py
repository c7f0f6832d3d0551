"""The gateway as the kernel's program: started, restarted, told of, stopped. Real processes."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from scripted import Inside, inside
from watching import Loop

from llmos.kernel import services
from llmos.kernel.config import GatewayConfig
from llmos.kernel.restart import RestartRules
from llmos.kernel.services import Service, gateway_argv, problem_with

URL = "http://127.0.0.1:7411"
SERVES = f"echo READY {URL}; echo here it is; echo 'WARNING careful' >&2; exec sleep 600"
AT_ONCE = RestartRules(restarts=2, first_delay_s=0, max_delay_s=0)


@pytest.fixture
def named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Inside]:
    """A kernel on a real loop whose configuration names a gateway; what is started is a stand-in."""
    monkeypatch.setattr(services, "gateway_argv", lambda config, _pid: ["sh", "-c", f"{SERVES}; {config.gateway.http}"])
    loop = Loop()
    with inside(folder, '[gateway]\nhttp = "127.0.0.1:7411"\n', loop, drivers="") as kernel:
        yield kernel
    loop.close()


def service(live: Inside, script: str, rules: RestartRules | None = None) -> Service:
    made = Service(live.kernel, "gateway", ["sh", "-c", script], os.environ, rules)
    live.kernel.services.by_name["gateway"] = made
    return made


def until(live: Inside, made: Service, state: str) -> None:
    assert live.loop is not None
    live.loop.until(lambda: made.state == state)


def said(live: Inside) -> list[tuple[str, str]]:
    records = live.kernel.journal.read(-1, limit=100, level="debug")
    return [(record.level, record.text) for record in records if record.unit == "gateway"]


def test_it_runs_when_it_says_so_and_what_it_prints_is_in_the_journal(live: Inside) -> None:
    made = service(live, SERVES)
    made.start()
    assert made.state == "starting" and made.url == "" and live.kernel.services.running
    until(live, made, "running")
    shown = made.describe()
    assert shown["url"] == URL == live.kernel.services.url and shown["pid"] > 0 and shown["restarts"] == 0
    assert live.loop is not None
    live.loop.until(lambda: len(said(live)) == 2)
    assert said(live) == [("info", "here it is"), ("warning", "careful")]
    made.stop(5.0)
    assert made.state == "stopping"
    until(live, made, "stopped")
    assert not live.kernel.services.running and live.kernel.services.url == ""


def test_the_system_and_proc_show_it(live: Inside) -> None:
    program = live.program()
    assert program.call("stat_object", handle=program.system)["fields"]["gateway"] == ""
    made = service(live, SERVES)
    made.start()
    until(live, made, "running")
    assert program.call("stat_object", handle=program.system)["fields"]["gateway"] == URL
    assert program.names("/proc/services") == ["gateway"]
    opened = program.call("open_file", path="/proc/services/gateway")
    data = program.call("read_file", file=opened["handle"], offset=0, count=1000)["data"]
    assert json.loads(data)["state"] == "running"


def test_a_crash_starts_it_again_until_there_were_too_many(live: Inside) -> None:
    made = service(live, f"echo READY {URL}; echo no luck; exit 3", AT_ONCE)
    made.start()
    until(live, made, "failed")
    assert made.describe()["restarts"] == 2 and made.cause == "exit status 3: no luck"
    level, text = said(live)[-1]
    assert level == "error" and "SIGHUP" in text and "the gateway ended" in text and "no luck" not in text


def test_wrong_settings_are_no_reason_to_try_again(live: Inside) -> None:
    made = service(live, "echo ERROR what a mess; exit 2")
    made.start()
    until(live, made, "failed")
    assert made.describe()["restarts"] == 0 and made.cause == "exit status 2: what a mess"
    assert said(live)[0] == ("error", "what a mess") and "settings are wrong" in said(live)[-1][1]


def test_a_program_that_cannot_be_started_is_tried_again_and_can_be_stopped_meanwhile(live: Inside) -> None:
    made = Service(live.kernel, "gateway", ["/nowhere/at/all"], os.environ)
    made.start()
    assert made.state == "backoff" and "could not be started" in made.cause
    made.stop(1.0)
    assert made.state == "stopped" and live.kernel.runner.next_timer() is None


def test_without_an_address_there_is_none(live: Inside) -> None:
    live.kernel.services.start()
    live.kernel.services.reload()
    assert live.kernel.services.by_name == {} and live.kernel.services.url == ""


def reload(live: Inside, http: str) -> None:
    live.kernel.reload(msgspec.structs.replace(live.kernel.config, gateway=GatewayConfig(http=http)))


def test_a_reload_restarts_it_only_when_something_changed(named: Inside) -> None:
    running = named.kernel.services
    running.start()
    first = running.by_name["gateway"]
    until(named, first, "running")
    reload(named, "127.0.0.1:7411")
    assert running.by_name["gateway"] is first
    reload(named, "127.0.0.1:1")
    assert first.state == "stopping" and named.loop is not None
    named.loop.until(lambda: running.by_name.get("gateway") not in (None, first))
    second = running.by_name["gateway"]
    until(named, second, "running")
    reload(named, "")
    named.loop.until(lambda: not running.by_name)
    assert second.state == "stopped"
    reload(named, "127.0.0.1:2")
    assert running.by_name["gateway"].running


def test_a_reload_starts_one_that_has_failed(named: Inside) -> None:
    made = service(named, "exit 2")
    made.start()
    until(named, made, "failed")
    reload(named, "127.0.0.1:7411")
    until(named, named.kernel.services.by_name["gateway"], "running")


def test_it_ends_with_the_kernel_and_nothing_takes_its_place(named: Inside) -> None:
    named.kernel.services.start()
    made = named.kernel.services.by_name["gateway"]
    until(named, made, "running")
    reload(named, "127.0.0.1:1")
    named.kernel.drain()
    assert not named.kernel.idle and named.loop is not None
    named.loop.until(lambda: named.kernel.idle)
    assert made.state == "stopped" and named.kernel.services.by_name == {}


def test_a_replacement_is_not_started_once_the_kernel_drains(named: Inside) -> None:
    named.kernel.draining = True
    reload(named, "127.0.0.1:1")
    assert named.kernel.services.by_name == {}


def test_one_that_does_not_end_is_killed(live: Inside) -> None:
    made = service(live, f"trap '' TERM; echo READY {URL}; while true; do sleep 0.05; done")
    made.start()
    until(live, made, "running")
    made.stop(0.05)
    until(live, made, "stopped")


def test_a_signal_is_named_as_its_cause(live: Inside) -> None:
    made = service(live, SERVES)
    made.start()
    until(live, made, "running")
    os.kill(made.describe()["pid"], signal.SIGKILL)
    assert live.loop is not None
    live.loop.until(lambda: made.describe()["restarts"] == 1)
    assert "SIGKILL" in made.cause


def test_the_command_of_the_gateway(live: Inside) -> None:
    config = msgspec.structs.replace(
        live.kernel.config, gateway=GatewayConfig(http="unix:/x", config={"keep_alive": 5})
    )
    argv = gateway_argv(config, 7)
    assert argv[:4] == [sys.executable, "-P", "-m", "llmos.userland.gateway"]
    options = dict(zip(argv[4::2], argv[5::2], strict=True))
    assert options["--http"] == "unix:/x" and json.loads(options["--settings"]) == {"keep_alive": 5}
    assert options["--parent"] == "7" and options["--home"] == str(config.paths.home)


def test_an_address_that_nobody_can_listen_at_is_known_before(folder: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert problem_with(f"127.0.0.1:{taken.getsockname()[1]}") == "Address already in use"
    assert problem_with("127.0.0.1:0") == "" and problem_with(f"unix:{folder}/x.sock") == ""
    assert "no folder" in problem_with(f"unix:{folder}/none/x.sock") and problem_with("127.0.0.1:99999")
    assert problem_with("no.such.host.invalid:80")
