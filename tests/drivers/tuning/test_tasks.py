"""Jobs of several tasks: one model learns them all, each judged by itself, and serves them all."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import tiny_models
import torch
import transformers
from tuning_runs import Make, Serve, maker

from llmos.drivers.contract import DoneEvent, LoadSettings, Prompt, Request
from llmos.drivers.devices.cpu import CpuDevice
from llmos.drivers.tuning.job import Running
from llmos.drivers.tuning.objectives.several import Several
from llmos.drivers.tuning.optimizing import trainable
from llmos.drivers.tuning.slices import Stopped

WORDS = ("quick", "brown", "fox", "lazy", "dog", "tokens", "pieces", "text")
MOOD = [{"text": f"{WORDS[n % 8]} {WORDS[n // 8]}", "label": "good" if n % 2 else "bad"} for n in range(64)]
TOPIC = [{"text": f"{WORDS[n % 8]} {WORDS[n // 8]}", "label": ("art", "law", "war")[n % 8 % 3]} for n in range(56)]
FILES = {"rows.jsonl": MOOD, "topic.jsonl": TOPIC}
LEARNS = {"method": "full", "max_steps": 120, "checkpoint_every": 120, "batch_size": 16, "learning_rate": 3e-3}
TASKS = {"mood": {"files": ["rows*"]}, "topic": {"files": ["topic*"], "weight": 2.0}}


@pytest.fixture
def make_heads(serve: Serve, tmp_path: Path) -> Make:
    return maker(serve, tmp_path, "BertForSequenceClassification", labels=tuple(f"LABEL_{n}" for n in range(5)))


def recipe(**fields: Any) -> dict[str, Any]:
    return {
        "objective": "classification", "files": FILES, "eval_fraction": 0.3, "max_steps": 4, "checkpoint_every": 2,
        "learning_rate": 0.05, "options": {"tasks": TASKS, "mixing": 2.0}, **fields,
    }  # fmt: skip


def test_each_task_is_judged_by_itself(make_heads: Make) -> None:
    prepared = make_heads(**recipe())
    assert isinstance(prepared.objective, Several) and prepared.plan.facts["objective"] == "several"
    assert [part.places for part in prepared.objective.parts] == [slice(0, 2), slice(2, 5)]
    assert {prepared.batches[n].task for n in range(len(prepared.batches))} == {0, 1}
    running = Running(prepared)
    running.work(lambda: None)
    assert {"eval_loss", "eval_mood_accuracy", "eval_topic_f1_macro", "eval_topic_loss_before"} <= running.values.keys()
    [told] = [each.facts["report"] for each in running.told() if "report" in each.facts]
    assert {"loss", "mood_accuracy", "topic_accuracy"} <= told["figures"].keys() and told["judged_by"] == "loss"


def test_all_are_learned_and_served_by_one_model(make_heads: Make) -> None:
    prepared = make_heads(**recipe(**LEARNS))
    running = Running(prepared)
    running.work(lambda: None)
    assert running.values["eval_mood_accuracy"] > 0.9 and running.values["eval_topic_accuracy"] > 0.9
    folder = prepared.job.folder
    module = transformers.AutoModelForSequenceClassification.from_pretrained(folder)
    assert list(module.config.id2label.values()) == ["mood/bad", "mood/good", "topic/art", "topic/law", "topic/war"]
    device = CpuDevice()
    device.start("cpu0", 1, {})
    try:
        device.load("m", tiny_models.source_of(folder), LoadSettings(dtype="float32"), tiny_models.silent)
        ask = Request("r", "m", Prompt(text="brown fox"), task="text-classification", options={"among": ["topic/"]})
        device.submit(ask)
        [done] = [event for _ in range(50) for event in device.step() if isinstance(event, DoneEvent)]
    finally:
        device.stop()
    labels = done.result.labels
    assert {each.label for each in labels} == {"topic/art", "topic/law", "topic/war"}
    assert sum(each.score for each in labels) == pytest.approx(1.0) and labels[0].label == "topic/law"


def test_a_run_that_was_interrupted_ends_as_one_that_was_not(make_heads: Make) -> None:
    whole = make_heads(**recipe())
    Running(whole).work(lambda: None)
    shutil.rmtree(whole.job.keep)
    interrupted = Running(make_heads(**recipe()))

    def stop() -> None:
        if any(each.stage == "checkpoint" for each in interrupted.told()):
            raise Stopped

    with pytest.raises(Stopped):
        interrupted.work(stop)
    again = make_heads(**recipe())
    Running(again).work(lambda: None)
    assert all(torch.equal(value, trainable(again.module)[name]) for name, value in trainable(whole.module).items())


@pytest.mark.slow
def test_objectives_may_differ_and_the_largest_is_planned(make: Make) -> None:
    better = [{"prompt": f"p {n}", "chosen": "a b c d", "rejected": "e f g h"} for n in range(8)]
    tasks = {"text": {"files": ["rows*"]}, "better": {"files": ["better*"], "objective": "preference"}}
    plain = make()
    prepared = make(files={"better.jsonl": better}, eval_fraction=0.3, options={"tasks": tasks})
    bytes_of = [each.plan.facts["bytes"]["activations"] for each in (prepared, plain)]
    assert bytes_of[0] > bytes_of[1], "a preference is two texts"
    assert [part.places for part in prepared.objective.parts] == [None, None]  # type: ignore[attr-defined]
    running = Running(prepared)
    running.work(lambda: None)
    assert {"eval_text_perplexity", "eval_better_accuracy"} <= running.values.keys()
