"""Named entities: an encoder learns from raw text by itself, then from labels, is served, and marks what it finds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import common
import encoders
from ner_corpus import TAGS, sentences

ASKED = "Dr. Ferrick of Ferrick Group flew to Port Ashvik on 3 May 2027 and paid 40 million euros."


def run(system: Any, home: Path, quick: bool = False) -> str:
    """Entity F1 with and without raw text first, what is taken for what, and a sentence that is marked."""
    raw, labelled, judged = (300, 60, 40) if quick else (6000, 2000, 400)
    texts = [sentence.text for sentence in sentences(raw, 1, False)]
    few = 380  # pieces: names are several, so that one that is new looks like those that are known
    blank = encoders.blank(home / "models/ner-blank", texts, few, lowercase=False, width=32 if quick else 128)
    corpus = common.write_rows(
        system, "/home/ner-raw", ({"text": text} for text in texts),
        ({"text": sentence.text} for sentence in sentences(judged, 2, True)),
    )  # fmt: skip
    steps = {"max_steps": 4 if quick else 200, "batch_size": 32, "max_length": 64}
    recipe = {"method": "full", "objective": "masked-lm", "learning_rate": 2e-3, **steps}
    first = common.tune(system, system.load_model("/models/ner-blank"), recipe, corpus, "/models/ner-encoder")

    rows = [
        [{"tokens": list(each.tokens), "tags": list(each.tags)} for each in sentences(count, seed, held_out)]
        for count, seed, held_out in ((labelled, 3, False), (judged, 4, True))
    ]
    data = common.write_rows(system, "/home/ner", *rows)
    encoders.with_head(common.weights_of(home, first.path), "tokens", TAGS, home / "models/ner-begun")
    encoders.with_head(blank, "tokens", TAGS, home / "models/ner-unread")
    recipe |= {"objective": "token-classification", "learning_rate": 1e-3, "options": {"labels": list(TAGS)}}
    recipe |= {"max_steps": 4 if quick else 150}
    done = {
        name: common.tune(system, system.load_model(f"/models/{name}"), recipe, data, f"/models/{out}")
        for name, out in (("ner-begun", "ner"), ("ner-unread", "ner-labels-alone"))
    }
    figures = [
        [said, *(common.interval(done[name].report["figures"]["entity_f1"][stage]) for stage in ("before", "after")),
         f"{done[name].seconds:.0f}"]
        for name, said in (("ner-begun", "raw text, then labels"), ("ner-unread", "labels alone"))
    ]  # fmt: skip
    loss = first.report["figures"]["loss"]
    with system.load_model("/models/ner") as model:
        found = model.infer(ASKED, task="ner", options={"aggregation_strategy": "first"}).result.spans
    marked = "\n".join(f"- `{span.text}` {span.label} {span.score:.2f}" for span in found)
    return "\n\n".join((
        f"Loss of hidden words of unseen sentences: {common.interval(loss['before'], 2)} before, "
        f"{common.interval(loss['after'], 2)} after {first.seconds:.0f} s with raw text.",
        common.table(("learned from", "entity F1 before", "after", "seconds"), figures),
        common.confusion(done["ner-begun"].report), f"`{ASKED}`", marked,
    ))  # fmt: skip
