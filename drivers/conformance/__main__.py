"""`python -m llmos.drivers.conformance NAME`: exit status 0 when the driver keeps the contract, else 1."""

from __future__ import annotations

import argparse
import json
import sys
import tomllib
from collections.abc import Sequence

from .runner import LIMIT_S, check


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m llmos.drivers.conformance", description="Check that a driver keeps the contract."
    )
    parser.add_argument("name", help="the driver, as its package announces it")
    parser.add_argument("--model", default="", metavar="FOLDER", help="a model for a device to load")
    parser.add_argument("--source", default="", metavar="SOURCE", help="a source for a file system to open")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting, as in TOML")
    parser.add_argument("--limit", type=float, default=LIMIT_S, metavar="SECONDS", help="time for one check")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    arguments = parser.parse_args(argv)
    try:
        config = tomllib.loads("\n".join(arguments.set))
    except tomllib.TOMLDecodeError as error:
        parser.error(f"--set: {error}; text needs quotes: --set 'name=\"value\"'")
    report = check(
        arguments.name, model=arguments.model, source=arguments.source, config=config, limit_s=arguments.limit
    )
    print(json.dumps(report.to_dict()) if arguments.json else report.table())
    return 0 if report.holds else 1


if __name__ == "__main__":
    sys.exit(main())
