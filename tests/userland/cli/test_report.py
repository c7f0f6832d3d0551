"""Reports of transformations, for people."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

from system.model_folder import write_model

from llmos.userland.cli.out import Out
from llmos.userland.cli.report import read_report, told

REPORT: dict[str, Any] = {
    "method": "gptq", "text": "notes.txt", "bytes_before": 4 << 20, "bytes_after": 1 << 20, "bits_per_weight": 4.5,
    "perplexity_before": 10.0, "perplexity_after": 10.2, "tokens": 2048,
    "modules": {f"layer.{n}": {"scheme": "w4 g128", "bytes": 1024, "error": n / 100} for n in range(7)},
}  # fmt: skip


def said(report: dict[str, Any]) -> list[str]:
    target = io.StringIO()
    told(Out(target=target), report)
    return target.getvalue().splitlines()


def test_bytes_quality_and_the_worst_layers_are_told() -> None:
    lines = said(REPORT)
    assert lines[0] == "weights: 4.0 MiB before, 1.0 MiB now (4.00 times less), 4.50 bits a weight"
    assert lines[1] == "perplexity: 10 before, 10.2 now (+2.00 %) on 2048 tokens of notes.txt"
    assert lines[2] == "the layers that changed most, of 7:"
    assert [line.split()[0] for line in lines[4:]] == ["layer.6", "layer.5", "layer.4", "layer.3", "layer.2"]
    assert "6.00%" in lines[4] and "w4 g128" in lines[4] and "1.0 KiB" in lines[4]


def test_what_stayed_wide_is_told_by_its_kind() -> None:
    experts = {f"model.layers.{layer}.experts.{n}.{part}.weight": 2 << 20 for layer in (0, 1) for n in range(4)
               for part in ("w1", "w2")}  # fmt: skip
    wide = {"model.embed_tokens.weight": 1 << 20, **experts, "router.weight": 1}
    kinds = "model.layers.N.experts.N.w1, model.layers.N.experts.N.w2, model.embed_tokens, others"
    assert said({"wide": wide}) == [f"as they were: 33.0 MiB, {kinds}"]
    assert said({"wide": {"model.embed_tokens.weight": 1 << 20}}) == ["as they were: 1.0 MiB, model.embed_tokens"]


def test_a_report_may_say_less() -> None:
    assert said({}) == []
    pruned = said({"modules": {"a": {"sparsity": 0.5}, "b": {"scheme": {"width": 4, "group": 32}, "error": 0.1}}})
    assert "width=4 group=32" in pruned[2] and "50% are 0" in pruned[3]


def test_show_tells_it(llmos: Any, system: Any, folder: Path) -> None:
    model = write_model(folder / "model")
    (model / "quantization.json").write_text(json.dumps(REPORT))
    ran = llmos(f"show file:{model}")
    assert ran.status == 0 and "perplexity: 10 before, 10.2 now" in ran.out and "layer.6" in ran.out
    assert llmos(f"show file:{model} --json").json["report"]["method"] == "gptq"


def test_it_lies_beside_the_weights(system: Any, folder: Path) -> None:
    (folder / "model").mkdir()
    path = "/mnt/reports"
    system.mount(folder, path, filesystem="files")
    assert read_report(system, f"{path}/model") == {} == read_report(system, "/models/nothing")
    (folder / "model/pruning.json").write_text(json.dumps(REPORT))
    assert read_report(system, f"{path}/model") == REPORT
    (folder / "model/pruning.json").write_text("[1, ")
    assert read_report(system, f"{path}/model") == {}
