"""bench: calls against the running kernel, and policies of residence on traces."""

from __future__ import annotations

import subprocess
import sys
import time
from argparse import Namespace
from statistics import median

from llmos.syscalls.calls import StatObject
from llmos.syscalls.errors import NotFound

from .. import text
from ..cli import Cli

CALLS = 2000
RESIDENCY = "residency"


def bench(cli: Cli, values: Namespace) -> int:
    """Time calls against the running kernel, or replay traces; the full benches are `make bench` of a checkout."""
    if values.name == RESIDENCY:
        return _residency(cli, values)
    system = cli.system
    call = StatObject(handle=system.handle)
    samples = []
    for _ in range(CALLS):
        began = time.perf_counter()
        system.client.call(call)
        samples.append(time.perf_counter() - began)
    samples.sort()
    rows = {"null call p50": median(samples), "null call p99": samples[int(len(samples) * 0.99)]}
    if values.name and not any(name.startswith(values.name) for name in (*rows, "ipc")):
        raise NotFound(f"there is no bench {values.name!r} here; there are ipc and {RESIDENCY}. All others: make bench")
    if not cli.out.result({name: value * 1e6 for name, value in rows.items()}):
        cli.out.table(("BENCH", ">TIME"), [(name, text.duration(value)) for name, value in rows.items()])
        cli.out.line("the full benches, each beside its peer: make bench")
    return 0


def _residency(cli: Cli, values: Namespace) -> int:
    """In a process of its own, which prints as it goes; no kernel has to run."""
    argv = [sys.executable, "-P", "-m", "llmos.kernel.arbiter.simulation"]
    argv += [f"--seeds={values.seeds}"] if values.seeds else []
    argv += [f"--requests={values.requests}"] if values.requests else []
    argv += ["--json"] if cli.out.as_json else []
    if not values.requests:
        cli.out.note("this takes a few minutes; with --requests 2000 it is shorter, and says less")
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    with process:
        assert process.stdout is not None
        for line in process.stdout:
            cli.out.write(line)
    return process.returncode
