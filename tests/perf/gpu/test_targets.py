"""Aims: the figure of each from what parts found, or why there is none."""

from __future__ import annotations

from typing import Any

import pytest
from gpu.setting import SHAPES
from gpu.targets import Line, Target, lines, targets

FOUND: dict[str, Any] = {
    "ceilings": {"copy_bytes_per_s": 3e12, "to_device_bytes_per_s": 50e9},
    "decoding 8b": {"replayed": {"rate": 150.0}, "rates": {"16": 2100.0, "64": 6000.0}, "busy": 0.98},
    "generate 8b": {"dynamic": 50.0},
    "serving": {"requests": {"seconds": 5.0}, "between": {"alone_p95": 0.01, "during_p95": 0.02}},
    "generate many": {"batch_seconds": 25.0},
    "quantized": {
        "w4a16": {"1": {"library": 4e-5, "ours": 2e-5, "bytes": 3e7}, "64": {"library": 4e-5, "ours": 6e-5}},
        "w4a16 buckets": {"1": {"library": 4e-5, "ours": 2e-5}, "128": {"library": 9e-5, "ours": 1e-4}},
        "fp8": {"4096": {"library": 4e-4, "ours": 2e-4}},
    },
    "narrow peers": {"1": {"torch": 3e-5, "another": 2.4e-5}, "16": {}},
    "w4 8b": {
        "load": {"weights": 5e9, "device_peak": 5.25e9, "host_peak": 7e9}, "rates": {"1": 300.0, "64": 6000.0},
    },
    "fp8 8b": {"rates": {"1": 200.0, "64": 7500.0}},
}


def by_what(failed: dict[str, str] | None = None) -> dict[str, Line]:
    return {line.target.what: line for line in lines(FOUND, failed or {}, targets(["0.6b", "8b"], False, "triton"))}


def test_figures_are_ratios_of_what_was_found() -> None:
    told = by_what()
    assert told["8b decode, 1 row over generate"].value == pytest.approx(3.0)
    assert told["8b decode, 1 row over generate"].state == "goal"
    share = told["8b decode, 1 row: weight bytes over copy"].value
    assert share == pytest.approx(SHAPES["8b"].read_bytes * 150 / 3e12) and 0.7 < share < 0.8
    assert told["8b decode, 1 row: weight bytes over copy"].state == "must"
    assert told["64 requests over generate_batch"].value == pytest.approx(5.0)
    assert told["8b, 16 rows over 1"].state == "goal"


def test_narrow_weights_are_measured_against_wide_ones() -> None:
    told = by_what()
    assert told["w4a16 over bf16 product, 1 tokens"].value == pytest.approx(2.0)
    assert told["w4a16 over bf16 product, 1 tokens"].state == "must"
    assert told["w4a16 over bf16 product, 64 tokens"].state == "missed"
    assert told["fp8 over bf16 product, 4096 tokens"].state == "goal"
    assert told["8b of 4 bits over bf16, 1 rows"].value == pytest.approx(2.0)
    assert told["8b of 4 bits over bf16, 64 rows"].value == pytest.approx(1.0)
    assert told["w8a16 over bf16 product, 1 tokens"].state == "not measured"


def test_narrow_products_are_measured_against_others_and_at_every_bucket() -> None:
    told = by_what()
    assert told["w4a16 over bf16 product, least of all buckets"].value == pytest.approx(0.9)
    assert told["w4a16 over the best other kernel, 1 tokens"].value == pytest.approx(1.2)
    none = told["w4a16 over the best other kernel, 16 tokens"]
    assert (none.value, none.why) == (None, "this device has no such figure")
    assert told["w4a16, 1 token: bytes over copy"].value == pytest.approx(0.5)


def test_fp8_is_measured_with_many_rows_and_loading_at_its_peak() -> None:
    told = by_what()
    assert told["8b of fp8 over bf16, 64 rows"].value == pytest.approx(1.25)
    peaks = [told[f"8b of 4 bits, {what}'s peak at load over size"] for what in ("device", "host")]
    assert [(line.value, line.state) for line in peaks] == [(1.05, "goal"), (1.4, "missed")]


def test_of_some_less_is_more() -> None:
    assert by_what()["p95 between tokens, long prompt over alone"].state == "must"
    assert Line(Target("G", "x", 2.5, 1.6, lambda _: None, less=True), 1.5).state == "goal"
    assert Line(Target("G", "x", 2.5, 1.6, lambda _: None, less=True), 2.6).state == "missed"


def test_what_was_not_measured_says_why() -> None:
    line = by_what({"attention": "status 1"})["paged decode 64 x 2048 over SDPA contiguous"]
    assert (line.state, line.value) == ("not measured", None)
    assert "attention" in line.why
    assert by_what()["decode kept while a fine-tune runs"].state == "not measured"


def test_a_model_of_8b_has_8_billion_parameters() -> None:
    assert 8.1e9 < SHAPES["8b"].parameters < 8.3e9
    assert 0.59e9 < SHAPES["0.6b"].parameters < 0.61e9
    assert 1.7e9 < SHAPES["1.7b"].parameters < 1.75e9
