"""`make bench`: every measured aim beside its peer in the same run. Raw figures go to docs/benchmarks/."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import first_token
import ipc
import registry
from measure import Row, machine, save, show

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "docs" / "benchmarks" / "raw"
ENGINE, GATEWAY, ARBITER, TUNING = "engine", "gateway", "arbiter", "tuning"
ON_DEMAND = (TUNING, ARBITER, GATEWAY, ENGINE)


def suites() -> dict[str, Callable[[], Sequence[Row]]]:
    """The benches by name that take minutes; the engine's, which take hours, run when they are asked for."""
    return {"ipc": ipc_rows, "start": ipc.start_up, "first-token": first_token.rows, "registry": registry.rows}


def ipc_rows() -> list[Row]:
    with ipc.bench() as b:
        return [*ipc.round_trips(b), *ipc.throughput(b), *ipc.payloads(b)]


def engine(options: argparse.Namespace, facts: dict[str, object]) -> None:
    """The engine beside its peers; see docs/benchmarks/README.md."""
    os.environ["OMP_NUM_THREADS"] = str(options.threads)  # read when torch is imported
    from engine.options import QUICK, Options, Sizes
    from engine.process import KINDS
    from engine.run import SUITES, run

    sizes = QUICK if options.quick else Sizes()
    if options.models:
        sizes = sizes.of(options.models.split(","))
    if options.rows:
        sizes = replace(sizes, concurrent=tuple(map(int, options.rows.split(","))))
    chosen = Options(
        sizes=sizes, folder=Path(options.folder), rounds=1 if options.quick else options.rounds,
        suites=_listed(options.only, SUITES), peers=_listed(options.peers, KINDS), threads=options.threads,
    )  # fmt: skip
    stamp = str(facts["date"]).replace(":", "").replace("+0000", "Z")
    default = RESULTS / f"{ENGINE}-{stamp}.json" if options.save else None
    run(chosen, facts, Path(options.save_to) if options.save_to else default)


def gateway(options: argparse.Namespace) -> list[Row]:
    """The gateway over the native client, and beside the servers of peers; see docs/benchmarks/gateway.md."""
    from gateway import among, overhead

    wanted = _listed(options.only, ("null", "among", "embeddings"))
    quick, count, streams = options.quick, 300, 500
    plan = among.Plan(
        Path(options.folder), options.models or among.Plan.model, _listed(options.peers, among.SERVERS),
        rounds=options.rounds, threads=options.threads,
    )  # fmt: skip
    if options.rows:
        plan = replace(plan, at_once=tuple(map(int, options.rows.split(","))))
    if quick:
        count, streams = 20, 50
        plan = replace(plan, model="tiny", at_once=(1, 4), prompt=16, generate=8, rounds=1, asks=20)
    rows: list[Row] = overhead.rows(count, streams) if "null" in wanted else []
    if "among" in wanted:
        rows += among.rows(plan)
    if "embeddings" in wanted:
        rows += among.embeddings(plan)
    return rows


def arbiter(options: argparse.Namespace) -> list[Row]:
    """Residency, scheduling and their cost; see docs/benchmarks/README.md."""
    from arbiter import run
    from engine.models import causal
    from engine.shapes import SHAPES

    name = options.models or ("tiny" if options.quick else "0.5b")
    wanted = _listed(options.only, run.SUITES)
    model = causal(Path(options.folder), SHAPES[name]) if "wake" in wanted else Path()
    return run.rows(model, wanted, options.quick)


def tuning(options: argparse.Namespace) -> list[Row]:
    """Tuning beside plain PEFT and Trainer, and beside serving; see docs/tuning.md."""
    from tuning import run

    name = options.models or ("tiny" if options.quick else "135m")
    wanted = _listed(options.only, run.SUITES)
    return run.rows(Path(options.folder), name, wanted, options.rounds, options.threads, options.quick)


def _listed(text: str, known: Sequence[str]) -> tuple[str, ...]:
    wanted = tuple(text.split(",")) if text else tuple(known)
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise SystemExit(f"there is no {', '.join(unknown)}; there are {', '.join(known)}")
    return wanted


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "suite", nargs="*", help=f"which: {', '.join([*suites(), *ON_DEMAND])}; all but the last four by default"
    )
    parser.add_argument("--save", action="store_true", help="keep the raw figures under docs/benchmarks/raw")
    group = parser.add_argument_group(", ".join(ON_DEMAND))
    group.add_argument("--quick", action="store_true", help="tiny models, one round: shows that everything works")
    group.add_argument("--only", default="", help="some of its suites, with commas between")
    group.add_argument("--peers", default="", help="some of the peers, with commas between")
    group.add_argument("--models", default="", help="other models, with commas between")
    group.add_argument("--rounds", type=int, default=5)
    group.add_argument("--rows", default="", help="other numbers of concurrent requests, with commas between")
    group.add_argument("--threads", type=int, default=2)
    group.add_argument("--save-to", default="", help="keep the raw figures in this file")
    group.add_argument("--folder", default=str(ROOT / "build" / "bench"), help="where models are made and kept")
    options = parser.parse_args(argv)
    facts = machine()
    print(", ".join(f"{name} {value}" for name, value in facts.items()), flush=True)
    for name in options.suite or suites():
        if name == ENGINE:
            engine(options, facts)
            continue
        chosen = {GATEWAY: gateway, ARBITER: arbiter, TUNING: tuning}.get(name)
        rows = chosen(options) if chosen is not None else list(suites()[name]())
        show(name, rows)
        if options.save:
            print(f"  kept in {save(RESULTS, name, facts, rows)}")
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(143))  # so that servers of peers end with it
    raise SystemExit(main())
