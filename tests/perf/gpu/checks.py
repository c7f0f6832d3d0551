"""Every implementation on the device against the reference, and compiled kernels against interpreted ones."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from llmos.drivers.ops.cases.case import Case, check, dtype_of, outcome
from llmos.drivers.ops.cases.grid import grid
from llmos.drivers.ops.table import OpTable

from .setting import Found, Setting
from .tables import op_table

NAME = "triton"
HEAVY = "experts"
"""The op whose large cases have the most numbers to draw."""
OFTEN = 50
KEPT = "interpreted.pt"
HERE = Path(__file__).resolve()


def correct(setting: Setting) -> Iterator[Found]:
    """Every case of the grid, every implementation that serves it, every dtype."""
    table, device = op_table(setting.device), torch.device(setting.device)
    wrong: list[dict[str, Any]] = []
    counted: dict[str, int] = {}
    for case, name, dtype in triples(table, device, tiny=setting.tiny):
        counted[f"{case.op} {name}"] = counted.get(f"{case.op} {name}", 0) + 1
        said = verdict(table, case, name, device, dtype)
        if said:
            wrong.append({"op": case.op, "case": case.name, "by": name, "dtype": dtype, "what": said})
        if sum(counted.values()) % OFTEN == 0:
            yield {"checked": counted, "wrong": wrong}
    yield {"checked": counted, "wrong": wrong}


def triples(table: OpTable, device: torch.device, tiny: bool) -> Iterator[tuple[Case, str, str]]:
    """Cases, names of implementations that serve them, and dtypes; those that take long to make come last."""
    for case in sorted(grid(tiny=tiny), key=lambda case: case.op == HEAVY):
        for dtype in case.dtypes:
            for name in table.names(case.op):
                if table.implementation(case.op, name).supports(case.asked(device, dtype))[0]:
                    yield case, name, dtype


def verdict(table: OpTable, case: Case, name: str, device: torch.device, dtype: str) -> str:
    """What is wrong; nothing when all is right. A kernel that fails in any way is a finding, not the end."""
    reference = table.implementation(case.op, "torch").call
    try:
        found = check(case, table.implementation(case.op, name).call, reference, device, dtype)
    except Exception as error:  # noqa: BLE001
        return f"{type(error).__name__}: {error}"[:500]
    return "" if found.ok else f"{found.worst:.3g} where {found.allowed:.3g} is allowed; {found.what}"


def start_interpreting(folder: Path) -> subprocess.Popen[bytes]:
    """A process of its own that runs the tiny cases in the interpreter, beside what the device does meanwhile."""
    environ = {**os.environ, "TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, str(HERE.with_name("interpret.py")), str(folder / KEPT)], env=environ)


def interpreted(setting: Setting) -> Iterator[Found]:
    """The tiny cases by compiled kernels here, compared with what the interpreter made of them."""
    kept = setting.folder / KEPT
    while not kept.exists():  # whoever started this ends it when its time is over
        time.sleep(0.1)
    known: dict[str, list[Any]] = torch.load(kept, weights_only=True)
    left_out = {key: made[0] for key, made in known.items() if isinstance(made[0], str)}
    expected = {key: made for key, made in known.items() if key not in left_out}
    table, device = op_table(setting.device), torch.device(setting.device)
    wrong: list[dict[str, Any]] = []
    compared = 0
    for case, name, dtype in triples(table, device, tiny=True):
        key = f"{case.op}/{case.name}/{dtype}"
        if name != NAME or key not in expected:
            continue
        compared += 1
        call = case.make(device, dtype_of(dtype))
        got = outcome(case, table.implementation(case.op, NAME).call, call)
        found = case.judge(tuple(expected[key]), got, dtype_of(dtype), call)
        if not found.ok:
            wrong.append({"op": case.op, "case": case.name, "dtype": dtype, "worst": found.worst, "what": found.what})
    yield {"interpreted": len(expected), "compared": compared, "left_out": left_out, "wrong": wrong}
    if setting.device == "cuda" and not compared:
        raise RuntimeError(f"no kernel was compared with the interpreter, which has answers of {len(expected)} cases")
