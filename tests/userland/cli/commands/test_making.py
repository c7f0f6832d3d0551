"""quantize, prune, merge, export: what they ask the kernel for, and what they say of the result."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from stored_models import matrices, store, stored

from llmos.syscalls.types import Quant, TransformRecipe
from llmos.userland.cli.commands import making

Asked = list[tuple[list[str], str, TransformRecipe]]


@pytest.fixture
def here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(folder)
    (folder / "notes.txt").write_text("what it should know")
    return folder


@pytest.fixture
def asked(here: Path, monkeypatch: pytest.MonkeyPatch) -> Asked:
    """What commands ask for, which is not done."""
    calls: Asked = []

    def run_job(cli: Any, sources: list[str], out: str, recipe: TransformRecipe, *_more: Any, **_options: Any) -> int:
        assert all(cli.system.read(source) for source in sources if source.startswith("/mnt"))
        calls.append((sources, out, recipe))
        return 0

    monkeypatch.setattr(making, "run_job", run_job)
    return calls


@pytest.mark.parametrize(
    ("line", "quant"),
    [
        ("quantize fox out", Quant()),
        ("quantize fox out --to w4 --head 16 --shift", Quant(width=4, head=16, shift=True)),
        ("quantize fox out --to w4a16 --group 64 --method awq",
         Quant(width=4, group=64, method="awq", activations="model")),
        ("quantize fox out --to fp8 --budget 4GiB", Quant(kind="float", group=0, byte_budget=4 << 30)),
        ("quantize fox out --to w8a8 --keep *.down_proj --keep lm_head",
         Quant(activations="int8", keep=["*.down_proj", "lm_head"])),
    ],
)  # fmt: skip
def test_quantize_says_how(llmos: Any, asked: Asked, line: str, quant: Quant) -> None:
    assert llmos(line).status == 0
    assert asked == [(["/models/fox"], "/models/out", TransformRecipe(kind="quantize", quant=quant))]


def test_text_and_places_of_this_machine_are_mounted(llmos: Any, asked: Asked) -> None:
    ran = llmos("quantize /models/acme/fox@2 ./small --text ./notes.txt --text /home/me/x.txt --force")
    assert ran.status == 0, ran.err
    ((sources, out, recipe),) = asked
    assert sources == ["/models/acme/fox@2", "/mnt/files-1/notes.txt", "/home/me/x.txt"]
    assert out == "/mnt/files-2/small" and recipe.options == {"replace": True}


@pytest.mark.parametrize(
    ("line", "method", "sparsity", "options"),
    [
        ("prune fox out", "magnitude", 0.5, {}),
        ("prune fox out --method wanda --sparsity 2:4 --text ./notes.txt", "wanda", 0.5, {"pattern": "2:4"}),
        ("prune fox out --sparsity 0.3", "magnitude", 0.3, {}),
        ("prune fox out --layer 3 --layer 5", "layers", 0.0, {"layers": [3, 5]}),
    ],
)
def test_prune_says_how(
    llmos: Any, asked: Asked, line: str, method: str, sparsity: float, options: dict[str, Any]
) -> None:
    assert llmos(line).status == 0
    recipe = asked[0][2]
    assert (recipe.kind, recipe.method, recipe.sparsity, recipe.options) == ("prune", method, sparsity, options)


def test_merge_puts_the_base_first(llmos: Any, asked: Asked) -> None:
    line = "merge a b out --method ties --base root --weights 0.7,0.3 --density 0.4 --seed 3 --as-given"
    assert llmos(line).status == 0
    options = {"density": 0.4, "seed": 3, "normalize": False}
    recipe = TransformRecipe(kind="merge", method="ties", weights=[0.7, 0.3], options=options)
    assert asked == [(["/models/root", "/models/a", "/models/b"], "/models/out", recipe)]


def test_export_names_a_format(llmos: Any, asked: Asked) -> None:
    assert llmos("export fox ./fox.gguf --format gguf-q8_0").status == 0
    assert asked[0][1].endswith("/fox.gguf") and asked[0][2] == TransformRecipe(kind="export", format="gguf-q8_0")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("quantize fox out --to w5", "write w4, w8,"),
        ("quantize fox out --budget lots", "is not a size"),
        ("prune fox out --sparsity most", "write a number such as 0.5, or 2:4"),
        ("merge a b out --weights 1,x", "write numbers such as 0.7,0.3"),
        ("merge a b out --method dare", "add --base MODEL"),
        ("merge a", "merge takes models, and last where the result goes"),
    ],
)
def test_what_means_nothing_is_said_before_anything_is_asked(llmos: Any, asked: Asked, line: str, said: str) -> None:
    ran = llmos(line)
    assert ran.status == 1 and said in ran.err and not asked


@pytest.mark.slow
def test_a_merge_is_made_and_a_failure_is_said(llmos: Any, system: Any, here: Path) -> None:
    for seed in range(2):
        store(here / f"m{seed}", matrices(2, seed=seed))
    ran = llmos("merge ./m0 ./m1 ./both")
    assert ran.status == 0, ran.err
    assert ran.out.startswith(f"{here}/both: 2 files,")
    assert len(stored(here / "both")) == 2
    assert json.loads((here / "both/manifest.json").read_text())["parents"][0]["how"] == "merged"
    ran = llmos("merge ./m0 ./m1 ./both")
    assert ran.status == 1 and "exists already" in ran.err and "--force" in ran.err
    assert llmos("merge ./m0 ./m1 ./both --force").status == 0
