"""What a browser looks at: a gateway, real or made up, and the process that drives the browser."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from clients.install import FOLDER, missing, python
from system.kernel_process import ALL, KernelProcess
from system.model_folder import write_model

from llmos.userland.gateway.core.keys import KeyStore, database

HERE = Path(__file__).parent
FAKE = HERE.parent / "userland" / "dashboard" / "fake_gateway.py"
FAKE_KEY = "llmos_demo"
BROWSERS = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
SCOPES = ("infer", "read", "load", "files", "tune", "manage", "admin")
PATIENCE_S = 30


def browser() -> str:
    """The system's browser; empty when there is none."""
    chosen = os.environ.get("LLMOS_CHROMIUM", "")
    found = [chosen] if chosen else [shutil.which(name) or "" for name in BROWSERS]
    return next((name for name in found if name), "")


def why_not() -> str:
    """Why the browser tests cannot run here; empty when they can."""
    if not browser():
        return "no browser: install chromium, or name one in LLMOS_CHROMIUM"
    return missing("browser")


@dataclass
class Stage:
    """A gateway to look at. `do` carries out what a scenario asks for."""

    url: str
    key: str
    lesser_key: str
    do: Callable[[str], None]

    def play(self, scenario: str, pictures: str = "") -> None:
        """Run a scenario; its assertions are the test's."""
        axe = str(FOLDER / "browser" / "scripts" / "axe.min.js")
        place = {"url": self.url, "key": self.key, "lesser_key": self.lesser_key, "browser": browser(), "axe": axe}
        if pictures:
            place["pictures"] = pictures
        command = [str(python("browser")), str(HERE / "drive.py"), scenario]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as driver:
            assert driver.stdin and driver.stdout
            driver.stdin.write(json.dumps(place) + "\n")
            driver.stdin.flush()
            last = ""
            for line in driver.stdout:
                last = line.strip()
                if last != "done":
                    self.do(last)
                    driver.stdin.write("ok\n")
                    driver.stdin.flush()
        assert driver.returncode == 0, f"{scenario} failed; what went wrong stands above"
        assert last == "done"


@contextlib.contextmanager
def _serving(command: Sequence[str], log: Path) -> Iterator[str]:
    """A server that writes one line when it listens."""
    ready, announce = os.pipe()
    with log.open("ab") as out:
        server = subprocess.Popen(
            [*command, "--ready-fd", str(announce)],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            pass_fds=[announce],
        )
    os.close(announce)
    try:
        with os.fdopen(ready) as lines:
            line = lines.readline().strip()
        if not line:
            server.wait()
            raise AssertionError(log.read_text())
        yield line
    finally:
        server.terminate()
        try:
            server.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


@contextlib.contextmanager
def made_up_system() -> Iterator[Stage]:
    """The gateway of made-up answers: a GPU, runs with curves, alerts."""

    def do(what: str) -> None:
        assert what == "cancelled twice"

    with (
        tempfile.TemporaryDirectory(prefix="t") as folder,
        _serving([sys.executable, str(FAKE)], Path(folder) / "log") as url,
    ):
        yield Stage(url, FAKE_KEY, FAKE_KEY, do)


class _Kernel:
    """A kernel that can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.now = KernelProcess(folder, drivers=ALL)
        self.dead = False

    def close(self) -> None:
        if not self.dead:
            self.now.close()
        self.dead = True

    def do(self, what: str) -> None:
        if what == "kill the kernel":
            self.close()
        elif what == "start the kernel":
            self.now, self.dead = KernelProcess(self.folder, drivers=ALL), False
        else:
            assert what == "cancelled twice"
            self.idle()

    def idle(self) -> None:
        """Wait until no request of the cancelled ones is left in the kernel."""
        with self.now.client() as client:
            end = time.monotonic() + PATIENCE_S
            while time.monotonic() < end:
                found = client.call("read_metrics", system=client.system, prefix="llmos_num_requests_running")
                if not any(metric["value"] for metric in found.values()):
                    return
        raise AssertionError(f"requests still run: {found}")


@contextlib.contextmanager
def real_system() -> Iterator[Stage]:
    """A real kernel with the null device, a real gateway, and a key that may do everything."""
    with tempfile.TemporaryDirectory(prefix="t") as path:
        folder = Path(path)
        (folder / "home").mkdir()
        for name in ("small", "other", "org/third"):
            write_model(folder / "home" / "models" / name)
        keys = KeyStore(database(folder / "home"))
        key, _ = keys.create("browser", user="ada", scopes=SCOPES)
        lesser, _ = keys.create("reader", user="bob", scopes=("infer", "read"))
        keys.close()
        kernel = _Kernel(folder)
        command = [
            sys.executable, "-P", "-m", "llmos.userland.gateway", "--http", "127.0.0.1:0",
            "--home", str(kernel.now.home), "--runtime", str(kernel.now.runtime),
        ]  # fmt: skip
        try:
            with _serving(command, folder / "gateway.log") as line:
                yield Stage(line.removeprefix("READY "), key, lesser, kernel.do)
            kernel.now.stop()
        finally:
            kernel.close()
