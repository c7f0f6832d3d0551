"""Records of runs that the fake gateway shows: a search of recipes with all that a report may say, and a run that is
not good enough.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

CLASSES = ("refund", "delivery", "<b>other</b>")
"""The last is no markup, and is not to be taken for it."""


def _figure(before: float, after: float, spread: float, better: str = "after") -> dict[str, Any]:
    def interval(value: float) -> list[float]:
        return [value, round(value - spread, 4), round(value + spread, 4)]

    return {
        "before": interval(before), "after": interval(after), "difference": interval(round(after - before, 4)),
        "drawn": "rows", "better": better,
    }  # fmt: skip


def _curve(bend: float) -> list[list[float]]:
    return [[n / 24, round((n / 24) ** bend, 3)] for n in range(25)]


def _report(accuracy: float, rows: int = 400) -> dict[str, Any]:
    right = round(accuracy * 160)
    matrix = [[right, 160 - right, 0], [12, 128 - 12 - 3, 3], [9, 40, 63]]
    each = [[0.91, accuracy, 0.9, 160], [0.8, 0.88, 0.84, 128], [0.95, 0.56, 0.71, 112]]
    bins = [[40, 0.55, 0.5], [90, 0.75, 0.7], [270, 0.97, 0.93]]
    curves = [
        {"class": name, "auc": [0.52, 0.97 - n / 20], "average_precision": [0.3, 0.93 - n / 10],
         "roc_before": _curve(1.0), "roc": _curve(0.1 + n / 8),
         "precision_recall": [[across, round(1 - up / 3, 3)] for across, up in _curve(3.0 - n)]}
        for n, name in enumerate(CLASSES)
    ]  # fmt: skip
    return {
        "version": 1, "objective": "classification", "judged_by": "accuracy", "share": 0.95, "samples": 200,
        "rows": rows, "items": rows, "cut": ["texts"],
        "figures": {
            "loss": _figure(1.12, 1.05 - accuracy / 2, 0.05), "accuracy": _figure(0.34, accuracy, 0.03),
            "expected_calibration_error": _figure(0.05, 0.06, 0.02, ""),
        },
        "classes": {"names": list(CLASSES), "left_out": 0, "before": {"each": each}, "curves": curves,
                    "after": {"each": each, "confusion": matrix, "calibration": {"error": 0.031, "bins": bins}}},
        "groups": {"column": "region",
                   "each": {"north": {"rows": 250, "accuracy": 0.9, "f1_macro": 0.88},
                            "south": {"rows": 150, "accuracy": 0.81, "f1_macro": 0.8}},
                   "differences": {name: [0.04, 0.09, 0.11] for name in CLASSES},
                   "differences_before": {name: [0.02, 0.01, 0.02] for name in CLASSES}},
        "mistakes": [
            {"row": 7, "by": 4.2, "said": CLASSES[0], "wanted": CLASSES[1],
             "text": "<script>document.title = 'taken'</script> my parcel never came and I want my money back, please"},
            {"row": 91, "by": 3.7, "said": CLASSES[1], "wanted": CLASSES[2], "text": "where is it"},
        ],
        "lengths": {"train": {"rows": 3600, "most": 211, "median": 34},
                    "held_out": {"rows": rows, "most": 180, "median": 33}},
    }  # fmt: skip


def _more() -> dict[str, Any]:
    """What reports of some objectives have beside."""
    example = {"prompt": "Where is <i>it</i>?", "wanted": "On its way.", "before": "It it it", "after": "On its way."}
    to_label = [
        {"place": "raw.jsonl:12", "doubt": 0.69, "said": "refund", "text": "<u>money</u> or parcel, I do not mind"}
    ]
    return {
        "texts": {"rows": 20, "tokens": 32, "figures": {"bleu": [0.02, 0.41]}, "examples": [example]},
        "unlabelled": {"rows": 600, "sure": [0.1, 0.82], "to_label": to_label},
    }  # fmt: skip


def _trials() -> Sequence[dict[str, Any]]:
    states = ("complete", "pruned", "complete", "failed", "cut")
    return [
        {"number": n, "parameters": {"rank": 4 << n, "learning_rate": 1e-4 * (n + 1)}, "state": state,
         "value": None if state == "failed" else 0.9 - n / 50, "steps": 800 if state == "complete" else 100 * n,
         "seconds": 40.5 + n, **({"error": "the loss is no number any more"} if state == "failed" else {})}
        for n, state in enumerate(states)
    ]  # fmt: skip


def run(id: str, state: str, out: str, **more: Any) -> dict[str, Any]:
    """A record as the gateway shows it."""
    recipe = {"method": "lora", "rank": 8, "learning_rate": 2e-4, "epochs": 3.0, "objective": "classification"}
    made: dict[str, Any] = {
        "id": id, "state": state, "created": 1.79e9, "ended": 1.79e9 + 600 if state == "done" else 0.0, "step": 800,
        "steps": 800, "tokens": 1 << 20, "values": {}, "facts": {"data_sha256": "5e1f"}, "curve": [], "error": None,
        "model": {"name": "qwen3-4b", "path": "/models/qwen3-4b", "version": "v2", "device": "cuda0"}, "method": "lora",
        "data": "/home/me/train.jsonl", "out": out, "version": "", "promoted": None, **more,
    }  # fmt: skip
    return {**made, "recipe": {**recipe, **more.get("recipe", {})}}


def _points(first: float) -> list[dict[str, float]]:
    return [{"step": step, "at": 1.79e9 + step, "loss": first / (1 + step / 90)} for step in range(0, 400, 10)]


RUNS: dict[str, dict[str, Any]] = {
    each["id"]: each
    for each in (
        run("t-18", "running", "/models/support-lora"),
        run("t-17", "done", "/models/support-lora", version="v3", promoted=True, recipe={"rank": 16},
            facts={"data_sha256": "5e1f", "report": _report(0.9), "trials": _trials(), "best": 0,
                   "importance": {"learning_rate": 0.71, "rank": 0.29}}),
        run("t-11", "done", "/models/support-lora-candidate", version="v1", promoted=False, curve=_points(1.4),
            facts={"data_sha256": "5e1f", "report": {**_report(0.78), **_more()}},
            recipe={"promote_if": "eval_accuracy > 0.8"}),
    )
}  # fmt: skip
