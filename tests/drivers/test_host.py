"""The life of a host: start, beats, errors, faults, drain, stop. Real processes, real signals."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from typing import Any

import pytest
from llmos.drivers.host import SETTINGS, split_settings
from llmos.syscalls.errors import BadArgument
from llmos.syscalls.wire import TERMINAL, MessageKind

BROKEN = """
    from llmos.drivers.hookspecs import hookimpl
    from llmos.drivers.devices.null import NullDevice

    class Device(NullDevice):
        def {method}(self, *given, **named):
            raise {error}

    @hookimpl
    def register_devices(register):
        register("broken0", Device)
"""


def test_a_host_introduces_itself_starts_and_stops(kernel: Any) -> None:
    ready = kernel.start()
    assert [(m.kind, m.name) for m in kernel.log] == [
        (MessageKind.BEAT, ""), (MessageKind.BEAT, ""), (MessageKind.REPLY, ""), (MessageKind.EVENT, "ready"),
    ]  # fmt: skip
    assert [m.body["seq"] for m in kernel.log[:2]] == [0, 1]
    assert kernel.log[1].body["busy_with"] == "start" and kernel.log[1].body["may_take_s"] == 120
    (device,) = ready.body["devices"]
    assert (device["name"], device["memory_bytes"], ready.body["version"]) == ("null0", 1 << 30, 1)
    assert kernel.call("stop") == {}
    assert kernel.wait() == 0
    assert kernel.output() == ("", "")


def test_the_kernel_may_allow_less_memory_than_there_is(kernel: Any) -> None:
    kernel.until(MessageKind.BEAT)
    kernel.call("start", {"manifest": {"driver": "null0", "memory_bytes": 1000}})
    assert kernel.until(MessageKind.EVENT, name="ready").body["devices"][0]["memory_bytes"] == 1000


# ---- beats


def test_the_work_loop_beats_when_idle_and_before_work(null: Any) -> None:
    idle = [null.until(MessageKind.BEAT) for _ in range(2)]
    assert [beat.body["busy_with"] for beat in idle] == ["", ""]
    assert [beat.body["may_take_s"] for beat in idle] == [3.0, 3.0]
    assert idle[1].body["seq"] == idle[0].body["seq"] + 1
    null.submit("!slow 700; hi", sampling={"max_tokens": 1})
    null.until_step(7)
    said = [m.body["may_take_s"] for m in null.log if m.kind is MessageKind.BEAT and m.body["busy_with"] == "requests"]
    assert said == [3.0, 7.0]


def test_a_hanging_step_does_not_beat(null: Any) -> None:
    """Two seconds in which a thread of its own would have beaten twice."""
    number = null.submit("!hang 2200; hi", sampling={"max_tokens": 1})
    null.answer(number)
    end = next(i for i, m in enumerate(null.log) if m.request == number and m.kind is MessageKind.END)
    beats = [m.body["busy_with"] for m in null.log[:end] if m.kind is MessageKind.BEAT]
    assert beats[-1] == "requests" and beats.count("requests") <= 2


def test_a_load_declares_its_size_and_progress_is_a_sign_of_life(kernel: Any) -> None:
    kernel.start(load_limit_s=5)
    files = [{"name": "w", "path": "/nowhere", "bytes": 250_000_000}]
    model = {"path": "/m", "version": "1", "files": files, "manifest": {"null": {"faults": ["slow 400"]}}}
    number = kernel.send("load", {"id": "m", "model": model})
    kernel.answer(number)
    beats = [m.body for m in kernel.log if m.kind is MessageKind.BEAT and m.body["busy_with"] == "load"]
    assert [beat["may_take_s"] for beat in beats] == [15.0, 15.0]
    progress = [m.body for m in kernel.log if m.kind is MessageKind.PROGRESS and m.request == number]
    assert (progress[0]["done"], progress[-1]["done"], progress[-1]["total"]) == (0, 250_000_000, 250_000_000)


def test_limits_come_from_the_configuration(kernel: Any) -> None:
    kernel.start(step_limit_s=0.6, start_limit_s=7)
    assert kernel.log[1].body["may_take_s"] == 7
    assert kernel.until(MessageKind.BEAT).body["may_take_s"] == 0.6


@pytest.mark.parametrize("value", [0, -1.0, "soon", True, None])
def test_a_limit_that_is_no_duration_is_refused(value: object) -> None:
    with pytest.raises(BadArgument, match="load_limit_s"):
        split_settings({"load_limit_s": value})


def test_the_settings_of_a_host_and_of_its_driver_are_told_apart() -> None:
    settings, rest = split_settings({"step_limit_s": 1, "own": "x"})
    assert rest == {"own": "x"}
    assert settings == {"step_limit_s": 1, **{k: v for k, (v, _) in SETTINGS.items() if k != "step_limit_s"}}


def test_a_setting_that_the_driver_has_not_is_answered_with_what_is_near(kernel: Any) -> None:
    kernel.until(MessageKind.BEAT)
    error = kernel.call("start", {"manifest": {"driver": "null0", "config": {"step_limt_s": 1}}})
    assert error["name"] == "BadArgument" and "did you mean 'step_limit_s'?" in error["message"]


# ---- errors that answer a call


def test_a_call_that_does_not_exist(null: Any) -> None:
    assert null.call("paint")["name"] == "BadCall"
    assert null.call("list", {"source": "/", "path": "/"})["name"] == "BadCall"


def test_a_call_before_the_start(kernel: Any) -> None:
    kernel.until(MessageKind.BEAT)
    assert kernel.call("unload", {"id": "m"})["name"] == "BadState"
    assert kernel.call("start", {"manifest": {"driver": "null0"}}) == {}


def test_a_second_start(null: Any) -> None:
    assert null.call("start", {"manifest": {"driver": "null0"}})["name"] == "BadState"


def test_arguments_that_make_no_sense(null: Any) -> None:
    error = null.call("load", {"id": 5, "model": {}})
    assert error["name"] == "BadArgument" and error["fields"]["name"] == "id"


def test_a_call_whose_deadline_has_passed_is_not_begun(null: Any) -> None:
    error = null.call("unload", {"id": "m", "deadline": time.monotonic_ns() - 1})
    assert error["name"] == "TimedOut"
    assert null.call("unload", {"id": "m"})["bytes"] > 0


def test_every_call_gets_exactly_one_answer(null: Any) -> None:
    """Good ones, bad ones and cancelled ones, mixed."""
    numbers = []
    for i in range(30):
        numbers.append(null.submit("one two", f"a{i}", stream=True, sampling={"max_tokens": i % 7}))
        numbers.append(null.submit("one", f"b{i}", sampling={"max_tokens": -1}))
        numbers.append(null.send("cancel", {"id": f"a{i - 1}"}))
        numbers.append(null.submit("!oom; one", f"c{i}"))
        numbers.append(null.send("nonsense"))
    numbers.append(null.send("drain"))
    numbers.append(null.send("stop"))
    assert null.wait() == 0
    answered = [m.request for m in null.log if m.kind in TERMINAL]
    assert sorted(n for n in answered if n in numbers) == numbers


# ---- starting badly


@pytest.mark.parametrize(
    ("config", "error"),
    [
        ({"colour": "red"}, "BadArgument"),
        ({"step_limit_s": 0}, "BadArgument"),
        ({"memory_bytes": "much"}, "BadArgument"),
        ({"faults": ["dance"]}, "BadArgument"),
        ({"faults": ["oom"]}, "NoDeviceMemory"),
    ],
)
def test_a_driver_that_cannot_start_says_why_and_ends(kernel: Any, config: dict[str, Any], error: str) -> None:
    kernel.until(MessageKind.BEAT)
    assert kernel.call("start", {"manifest": {"driver": "null0", "config": config}})["name"] == error
    assert kernel.wait() == 78


def test_a_host_serves_only_the_driver_it_was_made_for(kernel: Any) -> None:
    kernel.until(MessageKind.BEAT)
    assert kernel.call("start", {"manifest": {"driver": "cpu0"}})["name"] == "BadArgument"


def test_an_unknown_driver_says_why_and_ends(host_of: Callable[..., Any]) -> None:
    kernel = host_of("nobody0")
    kernel.until(MessageKind.BEAT)
    assert kernel.call("start", {"manifest": {"driver": "nobody0"}})["name"] == "NotFound"
    assert kernel.wait() == 78


def test_a_package_that_cannot_be_imported_says_why_and_ends(
    host_of: Callable[..., Any], package: Callable[..., Any]
) -> None:
    kernel = host_of("broken1", package("broken1", "import no_such_library").environ)
    kernel.until(MessageKind.BEAT)
    error = kernel.call("start", {"manifest": {"driver": "broken1"}})
    assert (error["name"], error["fields"]["cause"]) == (
        "DriverFailed", "ModuleNotFoundError: No module named 'no_such_library'",
    )  # fmt: skip
    assert kernel.wait() == 78


# ---- faults


def test_an_exception_in_a_step_is_a_fault_and_the_end(null: Any) -> None:
    other = null.submit("!slow 20; hi", "other", sampling={"max_tokens": 500, "ignore_eos": True})
    number = null.submit("!fault; hi")
    assert null.wait() == 70
    (fault,) = null.events("fault")
    assert fault.body["sticky"] and fault.body["text"] == "RuntimeError: the null device was told to fail"
    assert "Traceback" in null.output()[1]
    assert not [m for m in null.log if m.kind in TERMINAL and m.request in (number, other)]


@pytest.mark.parametrize("moment", ["submit", "step"])
def test_a_fault_that_the_device_reports_is_the_end_too(null: Any, moment: str) -> None:
    number = null.submit(f"!fault device @{moment}; hi")
    assert null.wait() == 70
    assert null.events("fault")[0].body["text"].startswith("DeviceFault")
    answers = [m.body["name"] for m in null.log if m.kind in TERMINAL and m.request == number]
    assert answers == (["DeviceFault"] if moment == "submit" else [])


@pytest.mark.parametrize("method", ["start", "facts", "load", "submit", "memory", "stop"])
def test_an_unexpected_exception_anywhere_ends_the_process(
    host_of: Callable[..., Any], package: Callable[..., Any], method: str
) -> None:
    source = BROKEN.format(method=method, error="ValueError('a bug')")
    kernel = host_of("broken0", package("broken0", source).environ)
    kernel.until(MessageKind.BEAT)
    kernel.send("start", {"manifest": {"driver": "broken0"}})
    kernel.send("load", {"id": "m", "model": {"path": "/m", "version": "1", "files": []}})
    kernel.submit("hi")
    kernel.send("stop")
    assert kernel.wait() == 70
    assert kernel.events("fault")[0].body["text"] == "ValueError: a bug"


def test_what_was_imported_is_not_looked_at_for_garbage(
    host_of: Callable[..., Any], package: Callable[..., Any]
) -> None:
    source = BROKEN.replace("raise {error}", "import gc; raise ValueError(gc.get_freeze_count())")
    kernel = host_of("broken0", package("broken0", source.format(method="load")).environ)
    kernel.start()
    kernel.send("load", {"id": "m", "model": {"path": "/m", "version": "1", "files": []}})
    assert kernel.wait() == 70
    assert int(kernel.events("fault")[0].body["text"].removeprefix("ValueError: ")) > 10_000


def test_results_that_cannot_be_sent_are_a_fault(host_of: Callable[..., Any], package: Callable[..., Any]) -> None:
    source = BROKEN.replace("raise {error}", "return [object()]").format(method="plan")
    kernel = host_of("broken0", package("broken0", source).environ)
    kernel.start()
    kernel.send("plan", {"model": {"path": "/m", "version": "1", "files": []}})
    assert kernel.wait() == 70


@pytest.mark.parametrize(("order", "status"), [("crash", 3), ("crash 9", 9), ("crash kill", -signal.SIGKILL)])
def test_a_crash_is_seen_as_what_it_was(null: Any, order: str, status: int) -> None:
    null.submit(f"!{order}; hi")
    assert null.wait() == status


def test_what_a_driver_prints_does_not_disturb_the_wire(null: Any) -> None:
    null.answer(null.submit("!noisy 5000; hi"))
    null.call("stop")
    null.wait()
    assert [len(text) > 4000 for text in null.output()] == [True, True]


# ---- the end


def test_draining_ends_what_runs_and_refuses_the_rest(null: Any) -> None:
    running = null.submit("!slow 50; hello")
    drain = null.send("drain")
    refused = null.submit("hello", "late")
    assert null.answer(refused).body["name"] == "Unavailable"
    null.answer(drain)
    kinds = {m.request: m.kind for m in null.log if m.kind in TERMINAL}
    assert (kinds[running], kinds[drain]) == (MessageKind.END, MessageKind.REPLY)
    assert null.log[-1].request == drain
    assert null.call("load", {"id": "n", "model": {"path": "/n", "version": "1", "files": []}})["name"] == "Unavailable"
    assert null.call("unload", {"id": "m"})["bytes"] > 0
    assert null.call("drain") == {}
    assert null.call("stop") == {} and null.wait() == 0


@pytest.mark.parametrize("by_signal", [False, True])
def test_stopping_answers_what_runs_and_what_waits(null: Any, by_signal: bool) -> None:
    running = null.submit("!slow 100; hello", stream=True, sampling={"max_tokens": 500, "ignore_eos": True})
    null.until(MessageKind.CHUNK)
    drain = null.send("drain")
    if by_signal:
        null.process.send_signal(signal.SIGTERM)
    else:
        null.send("stop")
    null.send("plan", {"model": {"path": "/m", "version": "1", "files": []}})
    assert null.wait() == 0
    error = null.answer(running)
    assert error.body["name"] == "PeerGone" and error.body["fields"]["tokens_done"] >= 1
    assert null.answer(drain).kind is MessageKind.REPLY or by_signal  # the signal may come first


def test_a_signal_ends_an_idle_host(null: Any) -> None:
    null.process.send_signal(signal.SIGTERM)
    assert null.wait() == 0


def test_a_signal_ends_a_host_that_has_not_started(kernel: Any) -> None:
    kernel.until(MessageKind.BEAT)
    kernel.process.send_signal(signal.SIGTERM)
    assert kernel.wait() == 0


def test_ctrl_c_is_left_to_the_kernel(null: Any) -> None:
    null.process.send_signal(signal.SIGINT)
    assert null.answer(null.submit("hi")).kind is MessageKind.END


def test_a_signal_ends_a_load_at_its_next_progress(kernel: Any) -> None:
    kernel.start()
    located = {"path": "/m", "version": "1", "files": [], "manifest": {"null": {"faults": ["slow 500"]}}}
    number = kernel.send("load", {"id": "m", "model": located})
    kernel.until(MessageKind.PROGRESS)
    kernel.process.send_signal(signal.SIGTERM)
    assert kernel.wait() == 0
    assert kernel.answer(number).body["name"] == "Cancelled"


def test_hooks_tell_the_beginning_and_the_end(host_of: Callable[..., Any]) -> None:
    kernel = host_of("null0", {"LLMOS_TRACE_HOOKS": "1"})
    kernel.start()
    kernel.call("stop")
    assert kernel.wait() == 0
    called = [line.split("(")[0] for line in kernel.output()[1].splitlines()]
    assert called == ["hook register_devices", "hook wrap_send", "hook driver_started", "hook driver_stopped"]
