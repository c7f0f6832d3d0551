"""Every Python block of the documentation compiles; those that begin with `# runs:` run, in a fresh process each.

`# runs: null0,models` starts kernels with these drivers only. A block marked `output` behind it is what it prints.
"""

from __future__ import annotations

import json
import os
import re
import struct
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from sources import ROOT

FENCE = re.compile(r"^```python\n(?P<code>.*?)^```\n(?:\n```output\n(?P<output>.*?)^```$)?", re.S | re.M)
RUNS = re.compile(r"# runs:(?P<drivers>.*)\n")
SKIPPED = {".venv", "build", "node_modules"}


@dataclass(frozen=True)
class Block:
    """One block of code and where it stands."""

    place: str
    code: str
    output: str | None


def blocks_of(text: str, name: str) -> list[Block]:
    return [
        Block(f"{name}:{text[: match.start()].count(chr(10)) + 1}", match["code"], match["output"])
        for match in FENCE.finditer(text)
    ]


def all_blocks() -> list[Block]:
    pages = [path for path in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")] if not SKIPPED & set(path.parts)]
    return [block for path in sorted(pages) for block in blocks_of(path.read_text(), str(path.relative_to(ROOT)))]


BLOCKS = all_blocks()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a model that only the null device can serve: it has no real weights."""
    folder = tmp_path_factory.mktemp("home")
    model = folder / "models" / "tiny"
    model.mkdir(parents=True)
    (model / "config.json").write_text(
        json.dumps({"architectures": ["LlamaForCausalLM"], "model_type": "llama", "max_position_embeddings": 2048})
    )
    header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    (model / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    return folder


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.place)
def test_every_block_compiles(block: Block) -> None:
    compile(block.code, block.place, "exec")


@pytest.mark.parametrize("block", [b for b in BLOCKS if RUNS.match(b.code)], ids=lambda block: block.place)
def test_a_marked_block_runs(block: Block, home: Path, folder: Path) -> None:
    done = run(block, home, folder)
    assert done.returncode == 0, done.stderr
    assert block.output is None or done.stdout == block.output


def run(block: Block, home: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    marked = RUNS.match(block.code)
    drivers = marked["drivers"].strip() if marked else ""
    env = {**os.environ, "LLMOS_HOME": str(home)}
    if drivers:
        env["LLMOS_LOAD_DRIVERS"] = drivers
    command = [sys.executable, "-W", "error", "-c", block.code]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)


def test_a_wrong_output_and_a_failure_would_be_seen(tmp_path: Path, folder: Path) -> None:
    text = "intro\n```python\n# runs:\nprint(1)\n```\n\n```output\n2\n```\n\n```python\nraise SystemExit(3)\n```\n"
    first, second = blocks_of(text, "x.md")
    assert (first.place, first.output, second.output) == ("x.md:2", "2\n", None)
    assert run(first, tmp_path, folder).stdout == "1\n"
    assert run(second, tmp_path, folder).returncode == 3
