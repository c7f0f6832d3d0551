"""`make bench`: every measured aim beside its peer in the same run. Raw figures go to docs/benchmarks/."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import first_token
import ipc
from measure import Row, machine, save, show

RESULTS = Path(__file__).resolve().parents[2] / "docs" / "benchmarks" / "raw"


def suites() -> dict[str, Callable[[], Sequence[Row]]]:
    """The benches by name."""
    return {"ipc": ipc_rows, "start": ipc.start_up, "first-token": first_token.rows}


def ipc_rows() -> list[Row]:
    with ipc.bench() as b:
        return [*ipc.round_trips(b), *ipc.throughput(b), *ipc.payloads(b)]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("suite", nargs="*", help=f"which: {', '.join(suites())}; all by default")
    parser.add_argument("--save", action="store_true", help="keep the raw figures under docs/benchmarks/raw")
    options = parser.parse_args(argv)
    facts = machine()
    print(", ".join(f"{name} {value}" for name, value in facts.items()))
    for name in options.suite or suites():
        rows = list(suites()[name]())
        show(name, rows)
        if options.save:
            print(f"  kept in {save(RESULTS, name, facts, rows)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
