"""Runs the checks in a process of their own, so that a driver that hangs or crashes costs one check, not the report."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .report import Finding, Report, Verdict

LIMIT_S = 120.0
BUNDLED = Path(__file__).parent.parent / "filesystems" / "models" / "bundled" / "tiny"


def check(
    name: str,
    *,
    model: str = "",
    source: str = "",
    config: Mapping[str, Any] | None = None,
    limit_s: float = LIMIT_S,
    environ: Mapping[str, str] | None = None,
) -> Report:
    """Check the driver called `name`.

    Args:
        model: folder of a model for a device to load; the bundled one by default.
        source: source for a file system; a made-up folder by default.
        config: the driver's own settings.
        limit_s: seconds that one check may take.
        environ: environment of the checked process; this one's by default.
    """
    with tempfile.TemporaryDirectory(prefix="llmos-check-") as scratch:
        made_up = _make_up(Path(scratch))
        subject = {
            "name": name,
            "model": model or str(BUNDLED if BUNDLED.is_dir() else made_up / "tiny"),
            "source": source or str(made_up),
            "config": dict(config or {}),
        }
        child_environ = {**(os.environ if environ is None else environ), "LLMOS_HOME": f"{scratch}/home"}
        return _Watch(subject, limit_s, child_environ).run()


class _Watch:
    """The checking process, started again after each failure: what failed may have left the driver in pieces."""

    def __init__(self, subject: Mapping[str, Any], limit_s: float, environ: Mapping[str, str]) -> None:
        self._subject = subject
        self._limit_s = limit_s
        self._environ = environ
        self._kind = ""
        self._names: list[str] = []
        self._findings: dict[str, Finding] = {}

    def run(self) -> Report:
        while True:
            before = len(self._findings)
            cause = self._round()
            left = [name for name in self._names if name not in self._findings]
            if not self._names or not left:
                break
            if len(self._findings) == before:
                self._findings[left[0]] = Finding(left[0], Verdict.UNKNOWN, cause)
        if not self._names:
            self._findings["start"] = Finding("it can be loaded and started", Verdict.FAILS, cause)
        return Report(self._subject["name"], self._kind, list(self._findings.values()))

    def _round(self) -> str:
        """Run a process until it ends; returns how it ended."""
        receive, send = os.pipe()
        order = json.dumps({**self._subject, "done": list(self._findings), "report": send})
        command = [sys.executable, "-P", "-m", "llmos.drivers.conformance.child", order]
        with (
            os.fdopen(receive, "rb", buffering=0) as reports,
            subprocess.Popen(
                command, env=self._environ, pass_fds=[send], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE, start_new_session=True,
            ) as process,
        ):  # fmt: skip
            os.close(send)
            try:
                return self._listen(process, reports.fileno())
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)

    def _listen(self, process: subprocess.Popen[bytes], reports: int) -> str:
        assert process.stderr is not None
        errors, partial, current = b"", b"", ""
        open_ends = {reports, process.stderr.fileno()}
        deadline = time.monotonic() + self._limit_s
        while open_ends:
            ready, _, _ = select.select(list(open_ends), [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                cause = f"it took longer than {self._limit_s:g} s and was killed"
                self._note(current, Verdict.FAILS, cause)
                return cause
            for end in ready:
                data = os.read(end, 1 << 16)
                if not data:
                    open_ends.discard(end)
                elif end == reports:
                    *lines, partial = (partial + data).split(b"\n")
                    for line in lines:
                        current = self._heard(json.loads(line))
                        deadline = time.monotonic() + self._limit_s
                else:
                    errors = (errors + data)[-2000:]
        process.wait()
        last = errors.decode(errors="replace").strip().rpartition("\n")[2]
        cause = f"the process ended with {_ending(process.returncode)}: {last}".rstrip(": ")
        self._note(current, Verdict.FAILS, cause)
        return cause

    def _heard(self, message: Mapping[str, Any]) -> str:
        """Take in a line; returns the check that runs now."""
        if "kind" in message:
            self._kind, self._names = message["kind"], message["checks"]
        elif "verdict" in message:
            self._note(message["check"], Verdict(message["verdict"]), message["text"])
            return ""
        return str(message.get("begin", ""))

    def _note(self, check: str, verdict: Verdict, text: str) -> None:
        if check:
            self._findings[check] = Finding(check, verdict, text)


def _ending(status: int) -> str:
    return f"status {status}" if status >= 0 else signal.Signals(-status).name


def _make_up(scratch: Path) -> Path:
    """A folder with a text, and a model of a few bytes."""
    folder = scratch / "source"
    model = folder / "tiny"
    model.mkdir(parents=True)
    (folder / "hello.txt").write_text("hello\n")
    header = json.dumps({"w": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}).encode()
    (model / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(16))
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "max_position_embeddings": 256}
    (model / "config.json").write_text(json.dumps(config))
    return folder
