"""Everything about a GPU in one run of at most eight minutes: checks, ceilings, kernels, the engine, peers, aims.

Each part has a process and a limit of its own; one that fails or is late is reported, and what it had found is kept.
Raw figures go to docs/benchmarks/raw. Needs torch, triton and transformers, and llmos on the path (`make view` makes
build/view); no pyzmq, msgspec or web libraries.

    python tests/perf/gpu/bench.py [--tiny --device cpu] [--parts NAME...] [--keep FOLDER]
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve()
sys.path.insert(0, str(HERE.parents[1]))

import torch  # noqa: E402
from gpu.setting import Setting  # noqa: E402
from gpu.targets import Line, lines, targets  # noqa: E402

from measure import machine  # noqa: E402

TOTAL_S = 480.0
RAW = HERE.parents[3] / "docs" / "benchmarks" / "raw"
MEMORY = Path("/dev/shm")
OF_MODELS = ("serving", "peers")
"""Modules whose parts need folders of models."""
MODELS_BYTES = 24 << 30
"""What the folders of all models take."""


@dataclass(frozen=True)
class Part:
    """One process: `call` is a function of a module here, `arguments` follow the setting."""

    name: str
    module: str
    call: str
    limit_s: float
    arguments: tuple[str, ...] = ()


def parts(setting: Setting) -> list[Part]:
    """In the order of their worth: what comes last is what there may be no time for."""
    *others, large = setting.models
    small = others[:1] or [large]
    return [
        Part("ceilings", "ceilings", "run", 40),
        Part("correct", "checks", "correct", 90),
        Part("attention", "attention", "run", 45),
        Part("quantized", "quantized", "run", 100),
        Part(f"decoding {large}", "serving", "decoding", 90, (large,)),
        Part("narrow peers", "narrow_peers", "run", 45),
        *(Part(f"{kind} {large}", "serving", "narrow", 60, (large, kind)) for kind in ("w4", "fp8")),
        *(Part(f"generate {model}", "peers", "alone", 60, (model,)) for model in small),
        *(Part(f"decoding {model}", "serving", "decoding", 45, (model,)) for model in small if model != large),
        Part("serving", "serving", "many", 90),
        Part("generate many", "peers", "many", 110),
        Part("interpreted", "checks", "interpreted", 60),
        Part("speeds", "speeds", "run", 60),
        *(Part(f"generate {model}", "peers", "alone", 75, (model,)) for model in (large,) if model not in small),
        *(Part(f"decoding {model}", "serving", "decoding", 45, (model,)) for model in others[1:]),
        *(Part(f"generate {model}", "peers", "alone", 60, (model,)) for model in others[1:]),
    ]


def run(setting: Setting, wanted: Sequence[str], total_s: float) -> tuple[dict[str, Any], dict[str, str]]:
    """What each part found, and why others failed."""
    began = time.monotonic()
    chosen = [part for part in parts(setting) if not wanted or any(part.name.startswith(name) for name in wanted)]
    helpers = list(start_helpers(setting, chosen))
    found: dict[str, Any] = {}
    failed: dict[str, str] = {}
    try:
        for part in chosen:
            left = total_s - (time.monotonic() - began)
            if left < 5.0:
                failed[part.name] = "no time was left"
                continue
            started = time.monotonic()
            found[part.name], why = run_part(setting, part, min(part.limit_s, left))
            if why:
                failed[part.name] = why
            said = f"failed: {why.splitlines()[-1]}" if why else "done"
            print(f"{part.name}: {said}, {time.monotonic() - started:.1f} s", flush=True)
    finally:
        for helper in helpers:
            helper.kill()
            helper.wait()
    return found, failed


def start_helpers(setting: Setting, chosen: Sequence[Part]) -> Iterator[subprocess.Popen[Any]]:
    """What the processor does while the device measures: kernels in the interpreter, folders of models."""
    names = {part.name for part in chosen}
    if "interpreted" in names:
        from gpu.checks import start_interpreting

        yield start_interpreting(setting.folder)
    models = [name for name in reversed(setting.models) if any(part.module in OF_MODELS for part in chosen)]
    if models:
        command = [sys.executable, str(HERE.with_name("weights.py")), str(setting.folder), *models]
        yield subprocess.Popen(command, stdout=subprocess.DEVNULL)


def run_part(setting: Setting, part: Part, limit_s: float) -> tuple[dict[str, Any], str]:
    """What it found until its end, and why it did not get further."""
    with tempfile.TemporaryDirectory() as folder:
        told = Path(folder) / "found.jsonl"
        about = json.dumps({"setting": setting.told(), "part": part.__dict__, "told": str(told)})
        why = ""
        process = subprocess.Popen(
            [sys.executable, str(HERE), "--part", about], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
        )
        try:
            _, errors = process.communicate(timeout=limit_s)
            if process.returncode:
                why = f"status {process.returncode}\n{errors[-2000:]}".strip()
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            why = f"not done after {limit_s:.0f} s"
        found: dict[str, Any] = {}
        for line in told.read_text().splitlines() if told.exists() else ():
            found.update(json.loads(line))
        return found, why


def child(about: str) -> None:
    """One part, in the process made for it; each piece is kept as soon as it is found."""
    given = json.loads(about)
    setting = Setting(**{**given["setting"], "folder": Path(given["setting"]["folder"])})
    part = given["part"]
    call = getattr(importlib.import_module(f"gpu.{part['module']}"), part["call"])
    with Path(given["told"]).open("a", encoding="utf-8") as file:
        for piece in call(setting, *part["arguments"]):
            file.write(json.dumps(piece) + "\n")
            file.flush()


def facts(device: str) -> dict[str, Any]:
    """What was measured on, and with what."""
    import transformers

    about = {**machine(), "torch": torch.__version__, "transformers": transformers.__version__, "device": device}
    if importlib.util.find_spec("triton"):
        about["triton"] = importlib.import_module("triton").__version__
    if device == "cuda":
        about |= {"gpu": torch.cuda.get_device_name(), "cuda": torch.version.cuda}
    return about


def report(found: Mapping[str, Any], failed: Mapping[str, str], aims: Sequence[Line]) -> str:
    """What people read."""
    said = []
    for name in ("correct", "interpreted"):
        wrong = found.get(name, {}).get("wrong")
        if wrong is not None:
            checked = found[name].get("compared", sum(found[name].get("checked", {}).values()))
            said.append(f"{name}: {checked} checked, {len(wrong)} wrong")
            said += [f"  {' '.join(str(each[key]) for key in each)}" for each in wrong[:20]]
            left_out = found[name].get("left_out", {})
            said += [f"{name}: {len(left_out)} left out, {key}: {why}" for key, why in [*left_out.items()][:1]]
    for name, value in found.get("ceilings", {}).items():
        said.append(f"{name}: {value}" if isinstance(value, dict) else f"{name}: {value / 1e9:.1f} G")
    said.append("")
    for line in aims:
        target, value = line.target, "-" if line.value is None else f"{line.value:.2f}"
        sign = "<=" if target.less else ">="
        bounds = f"{sign} {target.must:g} (goal {target.goal:g})"
        said.append(f"{target.id:4} {target.what:46} {value:>8}  {bounds:22} {line.state}  {line.why}".rstrip())
    said += ["", *(f"failed: {name}: {why.splitlines()[-1]}" for name, why in failed.items())]
    return "\n".join(said)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--tiny", action="store_true", help="sizes at which a processor can try it all")
    parser.add_argument("--parts", nargs="*", default=(), metavar="NAME", help="parts whose names begin so")
    parser.add_argument("--seconds", type=float, default=TOTAL_S, help="how long it may take in all")
    parser.add_argument("--keep", type=Path, default=RAW, help="where the raw figures go")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.part:
        child(options.part)
        return 0
    if options.device == "cuda" and not torch.cuda.is_available():
        print("torch sees no GPU here; --tiny --device cpu tries the bench without one", file=sys.stderr)
        return 2
    options.keep.mkdir(parents=True, exist_ok=True)
    about = facts(options.device)
    print(", ".join(f"{name} {value}" for name, value in about.items()), flush=True)
    roomy = MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > 2 * MODELS_BYTES
    with tempfile.TemporaryDirectory(dir=MEMORY if roomy and not options.tiny else None) as folder:
        setting = Setting(options.device, options.tiny, Path(folder))
        found, failed = run(setting, options.parts, options.seconds)
    by = "triton" if options.device == "cuda" else "native"
    aims = lines(found, failed, targets(setting.models, setting.tiny, by))
    print(report(found, failed, aims))
    keep = options.keep / f"gpu-{str(about['date']).replace(':', '').replace('+0000', 'Z')}.json"
    kept = {"machine": about, "found": found, "failed": failed, "targets": [line.told() for line in aims]}
    keep.write_text(json.dumps(kept, indent=1) + "\n")
    print(f"kept in {keep}")
    wrong = [each for name in ("correct", "interpreted") for each in found.get(name, {}).get("wrong", ())]
    return 1 if wrong or failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
