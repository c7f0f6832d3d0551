"""Faults that the null device has on order, so that a test can trigger one fault at one moment in a real process.

A fault is written `WHAT [ARGUMENT] [@MOMENT [N]]`:

    crash [kill|STATUS]   end the process by SIGKILL or with an exit status (3)
    hang [busy|MS]        sleep for ever, spin for ever, or sleep that many undeclared milliseconds
    slow MS               take this long, as declared; at a step: this one and all later ones
    late MS               do not let a cancel end the request before this long has passed
    oom [BYTES]           raise NoDeviceMemory, for want of so many bytes (1)
    fault [device]        raise RuntimeError; with `device`, DeviceFault
    noisy [BYTES]         print that much (1000) on standard output and on standard error
    garbage KIND          spoil the next answer: bytes (no message), half (a cut body), unknown (an answer to a request
                          nobody made comes first), twice (the answer is repeated)

MOMENT is start, load, submit or step; `@step 3` is the third step of a request, or of the process where the
configuration says it. Faults stand in the driver's configuration (`faults`, by default at start), in a model's manifest
(`null.faults`, at load), and at the head of a prompt (`!slow 20; !crash kill @step 3; text`, at the first step).
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from llmos.drivers.hookspecs import Send
from llmos.syscalls.errors import BadArgument, DeviceFault, NoDeviceMemory

MOMENTS = ("start", "load", "submit", "step")
KINDS = ("crash", "hang", "slow", "late", "oom", "fault", "noisy", "garbage")
GARBAGE = ("bytes", "half", "unknown", "twice")
EXIT_CRASH = 3
_UNKNOWN_HEADER = b"\x94\x01\xa3end\xcf" + (2**62).to_bytes(8, "big") + b"\xa0"
"""msgpack of `[1, "end", 2**62, ""]`."""


@dataclass(frozen=True)
class Fault:
    """One fault on order."""

    what: str
    argument: str
    moment: str
    number: int = 1

    @property
    def milliseconds(self) -> float:
        return float(self.argument) if self.argument.isdecimal() else 0.0


def parse(text: str, moment: str) -> Fault:
    """A fault from its text; `moment` is used when the text names none.

    Raises:
        BadArgument: the text is no fault.
    """
    order, _, when = text.partition("@")
    what, *argument = order.split()[:2] or [""]
    name, *number = when.split() or [moment]
    fault = Fault(what, "".join(argument), name, int(number[0]) if number and number[0].isdecimal() else 1)
    if len(order.split()) > 2 or len(number) > 1 or not _makes_sense(fault):
        raise BadArgument(
            f"{text!r} is no fault of the null device; it knows {', '.join(KINDS)} at {', '.join(MOMENTS)}",
            name="faults",
            got=text,
        )
    return fault


def _makes_sense(fault: Fault) -> bool:
    words = {
        "crash": ("", "kill"), "hang": ("", "busy"), "fault": ("", "device"), "noisy": ("",), "oom": ("",),
        "garbage": GARBAGE, "slow": (), "late": (),
    }  # fmt: skip
    numeric = fault.what not in ("fault", "garbage") and fault.argument.isdecimal()
    return fault.what in words and fault.moment in MOMENTS and (numeric or fault.argument in words[fault.what])


def split_prompt(text: str) -> tuple[list[Fault], str]:
    """The faults at the head of a prompt, and the prompt without them."""
    faults = []
    while text.startswith("!"):
        head, _, text = text.partition(";")
        faults.append(parse(head[1:], "step"))
        text = text.removeprefix(" ")
    return faults, text


def at(faults: Iterable[Fault], moment: str) -> list[Fault]:
    """Those due at a moment that is not a step."""
    return [fault for fault in faults if fault.moment == moment]


def step_seconds(faults: Iterable[Fault]) -> float:
    """What slow steps are declared to take."""
    return sum(fault.milliseconds for fault in faults if fault.what == "slow" and fault.moment == "step") / 1000


def perform(fault: Fault) -> None:
    """Let a fault happen. `late` and `garbage` concern an answer, see `Tamper`; for them this does nothing.

    Raises:
        NoDeviceMemory, DeviceFault, RuntimeError: as ordered.
    """
    if fault.what == "crash":
        sys.stderr.flush()
        if fault.argument == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        os._exit(int(fault.argument or EXIT_CRASH))
    elif fault.what == "hang":
        _hang(fault)
    elif fault.what == "slow":
        time.sleep(fault.milliseconds / 1000)
    elif fault.what == "oom":
        needed = int(fault.argument or 1)
        said = "the null device was told to have no memory left"
        raise NoDeviceMemory(said, needed=needed, by_whom="a fault on order")
    elif fault.what == "fault" and fault.argument == "device":
        raise DeviceFault("the null device was told to report a fault", cause="a fault on order")
    elif fault.what == "fault":
        raise RuntimeError("the null device was told to fail")
    elif fault.what == "noisy":
        line = "null device: noise ".ljust(79, ".") + "\n"
        size = int(fault.argument or 1000)
        for stream in (sys.stdout, sys.stderr):
            stream.write((line * (size // len(line) + 1))[:size] + "\n")
            stream.flush()


def _hang(fault: Fault) -> None:
    if fault.argument == "busy":
        while True:
            pass
    threading.Event().wait(fault.milliseconds / 1000 if fault.argument else None)


def first_time(marker: str) -> bool:
    """Whether the marker file was not there yet; makes it. Lets a fault happen once across restarts."""
    try:
        Path(marker).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


class Tamper:
    """Spoils answers on their way out."""

    def __init__(self) -> None:
        self._kind = ""

    def order(self, kind: str) -> None:
        """Spoil the next terminal answer of a request."""
        self._kind = kind

    def wrap(self, send: Send) -> Send:
        """A `send` that does it."""

        def tampering(frames: Sequence[bytes]) -> None:
            if not self._kind or b"\xa3end" not in frames[0]:
                send(frames)
                return
            kind, self._kind = self._kind, ""
            for message in _spoil(kind, frames):
                send(message)

        return tampering


def _spoil(kind: str, frames: Sequence[bytes]) -> list[Sequence[bytes]]:
    header, body = frames
    if kind == "bytes":
        return [[b"\xc1 this is no message", b"nor is this"]]
    if kind == "half":
        return [[header, body[: len(body) // 2]]]
    if kind == "unknown":
        return [[_UNKNOWN_HEADER, body], frames]
    return [frames, frames]
