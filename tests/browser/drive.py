"""Runs one scenario in the browser's own environment: `drive.py SCENARIO` with a `Place` as JSON in standard input.

Prints `done` at the end. A scenario that needs something of the machine (a kernel killed, started again) prints what,
and waits for a line.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import looks
import scenarios
import tunings
from walk import Place


def main() -> None:
    given = json.loads(sys.stdin.readline())
    pictures = given.pop("pictures", None)
    place = Place(**given, pictures=Path(pictures) if pictures else None)
    name = sys.argv[1]
    scenario = next(getattr(module, name) for module in (scenarios, looks, tunings) if hasattr(module, name))
    scenario(place)
    sys.stdout.write("done\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
