"""Runs the tiny cases through Triton's interpreter and keeps what came; a process of its own, with the flag.

What the interpreter cannot do is left out and told: some versions of it and of numpy do not get on.

    TRITON_INTERPRET=1 python tests/perf/gpu/interpret.py FILE
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from gpu.checks import NAME, triples
from gpu.tables import op_table
from llmos.drivers.ops.cases.case import dtype_of, outcome
from triton.runtime.errors import InterpreterError


def main(kept: Path) -> None:
    table, device = op_table("cpu"), torch.device("cpu")
    found: dict[str, Any] = {}
    for case, name, dtype in triples(table, device, tiny=True):
        if name == NAME:
            call = case.make(device, dtype_of(dtype))
            try:
                made = outcome(case, table.implementation(case.op, name).call, call)
            except InterpreterError as error:
                made = (f"{error}"[:300],)
            found[f"{case.op}/{case.name}/{dtype}"] = list(made)
    part = kept.with_suffix(".part")
    torch.save(found, part)
    part.rename(kept)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
