"""`make demo`: boots a private kernel, loads the bundled model, and shows what it does without a terminal."""

from __future__ import annotations

import sys
import time

from llmos.syscalls.errors import LlmosError
from llmos.userland.cli import asking, text
from llmos.userland.cli.cli import DEFAULT_MODEL
from llmos.userland.embedding import boot
from llmos.userland.objects import Model, System
from llmos.userland.private import BootFailed

REQUESTS = ("which models are loaded", "show me the last 20 log lines", "load acme/fox-7 on cpu0", "what is love")
BEGINNINGS = ("Return the number of", "Open the file and")


def demo() -> None:
    """Print what happens, step by step."""
    began = time.perf_counter()
    with boot() as system:
        say(f"a kernel of our own accepts calls after {text.duration(time.perf_counter() - began)}")
        model = system.load_model(DEFAULT_MODEL)
        info = model.info
        held = text.size(sum(row.predicted for row in info.bytes))
        say(f"{info.path}: {info.architecture}, {text.count(info.parameters)} parameters, {held} on {info.device}")
        say("it turns plain English into commands of the shell:")
        for request in REQUESTS:
            translate(system, model, request)
        say("it completes text, streamed as it is made:")
        for beginning in BEGINNINGS:
            complete(model, beginning)
        say("what the devices hold:")
        for device in system.devices():
            free = device.fields["free"]
            print(f"    {device.name}: {text.size(device.bytes - free)} used, {text.size(free)} free")
    say("the kernel is gone, and with it every process, socket and buffer")


def say(sentence: str) -> None:
    print(f"\n==> {sentence}", flush=True)


def translate(system: System, model: Model, request: str) -> None:
    """One request, and the command the model makes of it."""
    found = asking.translate(model, request, asking.threshold(system, DEFAULT_MODEL))
    answer = found.line if isinstance(found, asking.Suggestion) else "(refused: not understood)"
    print(f"    {request:45} {answer}", flush=True)


def complete(model: Model, beginning: str) -> None:
    """One text, continued."""
    print(f"    {beginning}", end="", flush=True)
    with model.infer_stream(beginning, max_tokens=24, temperature=0.7, seed=1) as stream:
        for chunk in stream:
            print(chunk.text.replace("\n", " "), end="", flush=True)
        usage = stream.result.usage
    print(f"   [{usage.new_tokens} tokens]")


def main() -> int:
    try:
        demo()
    except (LlmosError, BootFailed) as error:
        sys.stderr.write(f"llmos demo: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
