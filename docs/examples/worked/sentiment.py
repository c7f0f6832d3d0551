"""Sentiment: a classifier of reviews, its figures by line of products, and an alert when a stream turns bad."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import common
import encoders
import reviews

BATCH = 16


@dataclass
class Watch:
    """An exponentially weighted share, and an alarm that is raised once: it ends where the share is low again.

    Attributes:
        share: of negative reviews, as far as is known.
        weight: of a new review; 0.03 forgets half within 23 reviews.
        high: from where on there is an alarm.
        low: below it the alarm is over.
    """

    share: float = 0.3
    weight: float = 0.03
    high: float = 0.57
    low: float = 0.42
    raised: bool = False

    def take(self, negative: bool) -> str:
        """Count a review; `raised` or `cleared` where that changes, else nothing."""
        self.share += self.weight * (negative - self.share)
        if not self.raised and self.share >= self.high:
            self.raised = True
            return "raised"
        if self.raised and self.share <= self.low:
            self.raised = False
            return "cleared"
        return ""


def run(system: Any, home: Path, quick: bool = False) -> str:
    """Figures of held-out reviews, by line, and what an alert on a stream comes to over several seeds."""
    count, judged = (80, 40) if quick else (3000, 800)
    train, held_out = reviews.reviews(count, 1, False), reviews.reviews(judged, 2, True)
    blank = encoders.blank(
        home / "models/blank", [each.text for each in train], 1000, lowercase=True, width=32 if quick else 96
    )
    encoders.with_head(blank, "texts", reviews.LABELS, home / "models/begun")
    rows = [[{"text": each.text, "label": each.label} for each in side] for side in (train, held_out)]
    data = common.write_rows(system, "/home/reviews", *rows)
    recipe = {
        "method": "full", "objective": "classification", "max_steps": 4 if quick else 400, "batch_size": 32,
        "max_length": 64, "learning_rate": 1e-3, "options": {"labels": list(reviews.LABELS)},
    }  # fmt: skip
    done = common.tune(system, system.load_model("/models/begun"), recipe, data, "/models/sentiment")
    figures = [
        [name, *(common.interval(found[stage]) for stage in ("before", "after", "difference"))]
        for name, found in done.report["figures"].items()
    ]
    with system.load_model(done.path) as model:
        groups = by_line(model, held_out)
        length = (64, 32) if quick else (600, 300)
        watched = [watch(system, model, seed, *length) for seed in range(1 if quick else 5)]
    return "\n\n".join((
        common.table(("figure", "before", "after", "difference"), figures), common.confusion(done.report),
        roc(done.report), common.table(("line", "reviews", "right", "of negative ones found"), groups),
        common.table(("seed", "drift at review", "alert after", "false alarms before"), watched),
    ))  # fmt: skip


def roc(report: Any) -> str:
    """A few points of the curve: so many of the good ones are found where so many bad ones are taken for good."""
    (curve,) = report["classes"]["curves"]
    points = [(x, max(y for other, y in curve["roc"] if other <= x)) for x in (0.01, 0.05, 0.1, 0.2, 0.5)]
    rows = [["positive found", *(f"{y:.3f}" for _, y in points)]]
    area = " and ".join(f"{each:.3f}" for each in curve["auc"])
    return f"Area under the ROC curve before and after: {area}.\n\n" + common.table(
        ("negative taken for positive", *(f"{x:g}" for x, _ in points)), rows
    )


def classified(model: Any, texts: Iterable[str]) -> Iterator[bool]:
    """Whether each text is negative. Those that are asked for at once share a batch."""
    with ThreadPoolExecutor(BATCH) as pool:
        for answer in pool.map(lambda text: model.infer(text, options={"top_k": 1}).result, texts):
            yield answer.labels[0].label == "negative"


def by_line(model: Any, held_out: list[reviews.Review]) -> list[list[object]]:
    """For each line of products: reviews, share of right ones, share of negative ones that are found."""
    counts: dict[str, Counter[str]] = {line: Counter() for line in reviews.LINES}
    for review, said in zip(held_out, classified(model, [each.text for each in held_out]), strict=True):
        bad = review.label == "negative"
        counts[review.line].update(all=1, right=said is bad, bad=bad, found=bad and said)
    return [
        [line, each["all"], f"{each['right'] / max(1, each['all']):.3f}", f"{each['found'] / max(1, each['bad']):.3f}"]
        for line, each in counts.items()
    ]


def watch(system: Any, model: Any, seed: int, count: int, drift_at: int) -> list[object]:
    """Read the stream of another process in small batches, and write each alert to /home/alerts.jsonl."""
    program = Path(reviews.__file__)
    command = [sys.executable, str(program), f"--seed={seed}", f"--count={count}", f"--drift-at={drift_at}"]
    state, raised, seen = Watch(), [], 0
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as shop:
        assert shop.stdout is not None
        while batch := [json.loads(line)["text"] for line in islice(shop.stdout, BATCH)]:
            for negative in classified(model, batch):
                seen += 1
                if change := state.take(negative):
                    alert = {"rule": "negative reviews", "state": change, "at": seen, "value": state.share}
                    system.write("/home/alerts.jsonl", json.dumps(alert).encode() + b"\n", mode="a")
                    raised += [seen] if change == "raised" else []
    late = [at - drift_at for at in raised if at > drift_at]
    return [seed, drift_at, f"{late[0]} reviews" if late else "never", sum(at <= drift_at for at in raised)]
