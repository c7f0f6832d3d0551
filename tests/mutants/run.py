"""`make mutants`: plants one fault after the other in a copy of the kernel; each must be caught by the tests it names.

A mutant is one table of `mutants.toml`: a file, the text that is exchanged, and the tests that have to fail. The copy
holds the changed folder and links to everything else, and stands before the installed packages on the path.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
MUTANTS = Path(__file__).with_name("mutants.toml")
FOLDERS = ("syscalls", "kernel", "drivers", "userland")
TESTS_FAILED = 1
"""pytest's exit status; any other but 0 means that the tests did not even run."""


@dataclass(frozen=True)
class Mutant:
    """A planted fault. `says`: what goes wrong in the field when nobody notices."""

    name: str
    file: str
    old: str
    new: str
    says: str
    tests: tuple[str, ...]

    def planted(self) -> str:
        """The file with the fault.

        Raises:
            ValueError: the text to be exchanged does not stand in the file exactly once.
        """
        source = (ROOT / self.file).read_text()
        if (times := source.count(self.old)) != 1:
            raise ValueError(f"{self.name}: {self.old!r} stands {times} times in {self.file}, expected once")
        return source.replace(self.old, self.new)


def load(path: Path = MUTANTS) -> list[Mutant]:
    """All mutants, in the order of the file."""
    tables = tomllib.loads(path.read_text())["mutant"]
    return [Mutant(**{**table, "tests": tuple(table["tests"])}) for table in tables]


def caught(mutant: Mutant) -> bool:
    """Whether the tests notice.

    Raises:
        RuntimeError: they could not be run.
    """
    with tempfile.TemporaryDirectory(prefix="mutant") as folder:
        place = _copy(Path(folder), mutant)
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--hypothesis-profile=quick",
             *(str(ROOT / test) for test in mutant.tests)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(place), "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=False,
        )  # fmt: skip
    if done.returncode not in (0, TESTS_FAILED):
        raise RuntimeError(f"{mutant.name}: its tests did not run:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.returncode == TESTS_FAILED


def _copy(folder: Path, mutant: Mutant) -> Path:
    """A tree of the packages under their import names, with the fault in it."""
    place = folder / "llmos"
    place.mkdir()
    changed = Path(mutant.file).parts[0]
    for name in FOLDERS:
        if name == changed:
            shutil.copytree(ROOT / name, place / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            (place / name).symlink_to(ROOT / name)
    (place / Path(mutant.file)).write_text(mutant.planted())
    return folder


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="make mutants", description=__doc__)
    parser.add_argument("name", nargs="*", help="only these")
    wanted = parser.parse_args(arguments).name
    mutants = [mutant for mutant in load() if not wanted or mutant.name in wanted]
    survivors = []
    for mutant in mutants:
        noticed = caught(mutant)
        print(f"{'caught  ' if noticed else 'SURVIVED'} {mutant.name}: {mutant.says}", flush=True)
        if not noticed:
            survivors.append(mutant.name)
    print(f"{len(mutants) - len(survivors)} of {len(mutants)} caught")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
