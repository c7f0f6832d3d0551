"""All worked examples from a fresh home: `python all.py [NAME ...] [--quick] [--write PAGE]`."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import common
import ner
import real_text
import sentiment

from llmos.userland import boot

EXAMPLES = {"real-text": real_text.run, "ner": ner.run, "sentiment": sentiment.run}


def main() -> None:
    """Run the ones that are named, each in a kernel and a home of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(EXAMPLES)}; all by default")
    parser.add_argument("--quick", action="store_true", help="few rows and steps: only whether it works")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="put the results into the marked parts of a page")
    given = parser.parse_args()
    if unknown := set(given.names) - set(EXAMPLES):
        parser.error(f"there is no {', '.join(sorted(unknown))}; there are {', '.join(EXAMPLES)}")
    for name in given.names or EXAMPLES:
        started = time.monotonic()
        sys.stderr.write(f"{name}\n")
        with tempfile.TemporaryDirectory(prefix="llmos-example-") as folder:
            (Path(folder) / "models").mkdir()
            with boot(drivers=common.DRIVERS, home=folder) as system:
                shown = EXAMPLES[name](system, Path(folder), given.quick)
        sys.stdout.write(f"\n## {name}, {time.monotonic() - started:.0f} s\n\n{shown}\n")
        sys.stdout.flush()
        if given.write:
            _put(given.write, name, shown)


def _put(page: Path, name: str, shown: str) -> None:
    """Replace what stands between the marks of an example."""
    begin, end = f"<!-- measured: {name}; make examples -->\n", f"<!-- end: {name} -->"
    before, found, rest = page.read_text().partition(begin)
    if not found:
        raise SystemExit(f"{page} has no mark {begin.strip()}")
    page.write_text(f"{before}{begin}{shown}\n{end}{rest.partition(end)[2]}")


if __name__ == "__main__":
    main()
