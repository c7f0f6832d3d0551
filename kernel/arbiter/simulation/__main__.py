"""`python -m llmos.kernel.arbiter.simulation`: policies of residence on generated traces, beside a bound."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import product

from .report import measure, table
from .traces import GENERATORS

SEEDS = (101, 102)
"""Other seeds than those that the policy was tuned on."""
LENGTH = 10_000


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m llmos.kernel.arbiter.simulation", description="Replay traces over the policies of residence."
    )
    parser.add_argument("traces", nargs="*", metavar="TRACE", help=f"some of {', '.join(GENERATORS)}; all by default")
    parser.add_argument("--seeds", default=",".join(map(str, SEEDS)), metavar="A,B,...", help="of the traces")
    parser.add_argument("--requests", type=int, default=LENGTH, metavar="COUNT", help="of each trace")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    values = parser.parse_args(argv)
    if unknown := set(values.traces) - set(GENERATORS):
        parser.error(f"no trace {', '.join(sorted(unknown))}; there are {', '.join(GENERATORS)}")
    if values.requests < 1:
        parser.error(f"--requests {values.requests}: at least 1")
    try:
        seeds = [int(seed) for seed in values.seeds.split(",")]
    except ValueError:
        parser.error(f"--seeds {values.seeds!r}: numbers with commas between them, such as 101,102")
    names = values.traces or list(GENERATORS)
    with ProcessPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        found = pool.map(measure, *zip(*product(names, seeds, [values.requests]), strict=True))
        if values.json:
            print(json.dumps([result.to_dict() for result in found]))
            return 0
        for _ in names:
            print(table([next(found) for _ in seeds]), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
