"""Faults on order: how they are written, and that they happen, each in a process of its own."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from llmos.drivers.devices import null_faults
from llmos.drivers.devices.null_faults import Fault, Tamper, parse, split_prompt
from llmos.syscalls.errors import BadArgument, DeviceFault, NoDeviceMemory
from llmos.syscalls.wire import MessageKind, error_frames, pack, unpack, unpack_header


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("crash", Fault("crash", "", "step")),
        ("crash kill", Fault("crash", "kill", "step")),
        ("crash 9 @load", Fault("crash", "9", "load")),
        ("  hang   busy @ step  3 ", Fault("hang", "busy", "step", 3)),
        ("slow 20 @start", Fault("slow", "20", "start")),
        ("late 5", Fault("late", "5", "step")),
        ("oom @submit", Fault("oom", "", "submit")),
        ("oom 5", Fault("oom", "5", "step")),
        ("fault device", Fault("fault", "device", "step")),
        ("noisy", Fault("noisy", "", "step")),
        ("garbage half", Fault("garbage", "half", "step")),
    ],
)
def test_a_fault_is_read_from_its_text(text: str, fault: Fault) -> None:
    assert parse(text, "step") == fault


@pytest.mark.parametrize(
    "text",
    [
        "", "dance", "crash hard", "crash kill now", "slow", "slow -5", "late", "garbage", "garbage 5", "oom x",
        "fault 5", "crash @never", "crash @step x y", "hang kill", "noisy loud", "@step",
    ],
)  # fmt: skip
def test_a_text_that_is_no_fault_is_refused_by_name(text: str) -> None:
    with pytest.raises(BadArgument, match="no fault of the null device") as caught:
        parse(text, "step")
    assert caught.value.got == text


def test_a_prompt_begins_with_its_faults() -> None:
    assert split_prompt("hello!") == ([], "hello!")
    assert split_prompt("!slow 5; hello; you") == ([Fault("slow", "5", "step")], "hello; you")
    faults, rest = split_prompt("!slow 5; !crash @step 2;  !x")
    assert (faults[1], rest) == (Fault("crash", "", "step", 2), " !x")
    assert split_prompt("!oom") == ([Fault("oom", "", "step")], "")


def perform(text: str, **options: Any) -> subprocess.CompletedProcess[str]:
    imports = "from llmos.drivers.devices.null_faults import parse, perform"
    code = f"{imports}; perform(parse({text!r}, 'step')); print('on')"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, **options)


@pytest.mark.parametrize(("text", "status"), [("crash", 3), ("crash 77", 77), ("crash kill", -signal.SIGKILL)])
def test_a_crash_ends_the_process(text: str, status: int) -> None:
    done = perform(text)
    assert (done.returncode, done.stdout) == (status, "")


@pytest.mark.parametrize("text", ["hang", "hang busy"])
def test_a_hang_does_not_end(text: str) -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        perform(text, timeout=1)


@pytest.mark.parametrize("text", ["hang 10", "slow 10", "late 10", "garbage half"])
def test_others_go_on(text: str) -> None:
    assert perform(text).stdout == "on\n"


def test_noise_comes_on_both_streams() -> None:
    done = perform("noisy 300")
    assert len(done.stdout) == 300 + 1 + len("on\n") and len(done.stderr) == 301


@pytest.mark.parametrize(
    ("text", "error"), [("oom", NoDeviceMemory), ("fault", RuntimeError), ("fault device", DeviceFault)]
)
def test_errors_are_raised(text: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        null_faults.perform(parse(text, "step"))


def test_a_marker_file_lets_something_happen_once(folder: Path) -> None:
    marker = str(folder / "marker")
    assert [null_faults.first_time(marker) for _ in range(3)] == [True, False, False]


# ---- spoilt answers

END = pack(MessageKind.END, 5, "", {"value": {"x": 1}})


def spoilt(kind: str) -> list[Sequence[bytes]]:
    sent: list[Sequence[bytes]] = []
    tamper = Tamper()
    send = tamper.wrap(sent.append)
    tamper.order(kind)
    send(pack(MessageKind.CHUNK, 0, "", {}))
    send(END)
    send(END)
    assert sent[0] == pack(MessageKind.CHUNK, 0, "", {}) and sent[-1] == END
    return sent[1:-1]


def test_without_an_order_nothing_is_spoilt() -> None:
    sent: list[Sequence[bytes]] = []
    Tamper().wrap(sent.append)(END)
    assert sent == [END]


def test_an_error_is_not_spoilt_but_the_end_after_it() -> None:
    sent: list[Sequence[bytes]] = []
    tamper = Tamper()
    send = tamper.wrap(sent.append)
    tamper.order("twice")
    send(error_frames(1, NoDeviceMemory("x")))
    send(END)
    assert len(sent) == 3


def test_bytes_are_no_message() -> None:
    (frames,) = spoilt("bytes")
    with pytest.raises(Exception, match="header"):
        unpack_header(frames[0])


def test_half_is_a_header_with_a_cut_body() -> None:
    (frames,) = spoilt("half")
    assert unpack_header(frames[0])[1] == 5
    with pytest.raises(Exception, match="body"):
        unpack(frames)


def test_unknown_is_an_answer_to_nobody_before_the_true_one() -> None:
    first, second = spoilt("unknown")
    message = unpack(first)
    assert (message.kind, message.request, message.body) == (MessageKind.END, 2**62, {"value": {"x": 1}})
    assert second == END


def test_twice_is_the_answer_again() -> None:
    assert spoilt("twice") == [END, END]


def test_a_hosts_answers_are_spoilt_on_the_wire(null: Any) -> None:
    """Through a real process and socket, by a directive of the prompt."""
    null.submit("!garbage half; x", sampling={"max_tokens": 0})
    frames = null.raw()
    while unpack_header(frames[0])[0] is not MessageKind.END:
        frames = null.raw()
    with pytest.raises(Exception, match="body"):
        unpack(frames)
    assert null.answer(null.submit("x", "next")).kind is MessageKind.END
