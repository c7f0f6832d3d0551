"""`make clients`: an environment for each foreign client that tests call but the project does not depend on.

Each lies below build/clients, since what they require does not load beside our own pins, or would load into our pytest.
`browser` also gets axe-core's script from npm, checked against its hash; the browser itself is the system's.

    python tests/clients/install.py [ollama schemathesis browser]
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import os
import subprocess
import sys
import tarfile
import tempfile
import venv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "build" / "clients"


class NotInstalled(Exception):
    """An environment could not be made; the text says why."""


@dataclass(frozen=True)
class Script:
    """One file out of an npm package. `sha512` is the registry's `integrity` of the whole archive, in base64."""

    package: str
    sha512: str
    files: Sequence[str]


@dataclass(frozen=True)
class Recipe:
    """What goes into an environment: Python packages, the first one being what it is named for, and scripts."""

    packages: Sequence[str]
    scripts: Sequence[Script] = ()


AXE = Script(
    "axe-core@4.14.1",
    "FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ==",
    ("axe.min.js", "LICENSE"),
)
RECIPES = {
    "ollama": Recipe(["ollama==0.6.3"]),
    "schemathesis": Recipe(["schemathesis==4.32.5"]),
    "browser": Recipe(["playwright==1.65.2"], [AXE]),
}


def python(name: str) -> Path:
    """The interpreter of a client's environment, whether it is there or not."""
    return FOLDER / name / "bin" / "python"


def missing(name: str) -> str:
    """Why tests with this client are skipped; empty when it is there."""
    return "" if (FOLDER / name / "installed.txt").exists() else f"build/clients/{name} is not there: make clients"


def install(name: str) -> str:
    """Make or complete an environment; returns what is in it.

    Raises:
        NotInstalled: an archive is not the one that is expected.
        subprocess.CalledProcessError: pip or npm failed.
    """
    recipe, folder = RECIPES[name], FOLDER / name
    if not python(name).exists():
        venv.create(folder, with_pip=True)
    pip = [str(python(name)), "-m", "pip"]
    subprocess.run([*pip, "install", "--quiet", *recipe.packages], check=True, preexec_fn=lambda: os.nice(19))
    for script in recipe.scripts:
        _unpack(script, folder / "scripts")
    found = subprocess.check_output([*pip, "freeze"], text=True).split()
    (folder / "installed.txt").write_text("\n".join([*found, *(script.package for script in recipe.scripts)]) + "\n")
    return ", ".join([*recipe.packages, *(script.package for script in recipe.scripts)])


def _unpack(script: Script, to: Path) -> None:
    """Fetch a package with `npm pack`, which runs nothing of it, and keep the wanted files as they are."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["npm", "pack", "--silent", script.package], cwd=folder, check=True, stdout=subprocess.DEVNULL)
        (archive,) = Path(folder).glob("*.tgz")
        found = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
        if found != script.sha512:
            raise NotInstalled(f"{script.package} has the SHA-512 {found}, not {script.sha512}")
        to.mkdir(exist_ok=True)
        with tarfile.open(archive) as package:
            for name in script.files:
                content = package.extractfile(f"package/{name}")
                if content is None:
                    raise NotInstalled(f"{script.package} has no file {name}")
                (to / name).write_bytes(content.read())


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("client", nargs="*", help=f"which: {', '.join(RECIPES)}; all by default")
    failed = 0
    for name in parser.parse_args(argv).client or RECIPES:
        try:
            print(f"{name}: {install(name)}", flush=True)
        except (NotInstalled, OSError, subprocess.CalledProcessError) as error:
            failed += 1
            print(f"{name}: not installed: {error}", file=sys.stderr, flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
