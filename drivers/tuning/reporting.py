"""The report of a job: made from its evaluations, and kept beside its result."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .assembling import looks
from .fairness import fairness
from .judging import Evaluated
from .looks import HeldOut
from .mistakes import texts_of
from .preparing import Prepared
from .report import report
from .slices import Yield

FILE = "report.json"

Looked = Mapping[str, tuple[Mapping[str, Tensor], Mapping[str, Tensor]]]
"""As `training.Report` has it."""


@torch.no_grad()
def write(
    prepared: Prepared, before: Evaluated, after: Evaluated, looked: Looked, folder: Path, yield_: Yield
) -> dict[str, Any]:
    """The report of a job, which is written into the folder of its result. Raises OSError."""
    data = prepared.data
    lengths = {name: data.facts[name] for name in ("train", "held_out") if name in data.facts}
    decode = partial(prepared.bundle.tokenizer.decode, skip_special_tokens=True)
    texts = texts_of([example.tokens for example in data.held_out], decode)
    facts: dict[str, Any] = {"lengths": lengths}
    if data.groups:
        facts["groups"] = {"column": prepared.recipe.group, **fairness(before.gathered, after.gathered, data.groups)}
    every, figures = looks(prepared), dict[str, Any]()
    for name, (one, other) in looked.items():
        facts |= every[name].compared(one, other, yield_)
        figures |= facts.pop("figures", {})
    facts["figures"] = figures
    made = report(prepared.recipe.judged_as, prepared.judge.summary, before, after, texts, facts, yield_)
    (folder / FILE).write_text(json.dumps(made, ensure_ascii=False, separators=(",", ":")))
    return made


def compared(fresh: Prepared, tuned: Prepared, folder: Path, yield_: Yield) -> dict[str, Any]:
    """The report of a job whose module is there as it was, too: both are looked at anew. Raises OSError."""
    (before, first), (after, last) = (_seen(each, yield_) for each in (fresh, tuned))
    return write(tuned, before, after, {name: (first[name], last[name]) for name in last}, folder, yield_)


@torch.no_grad()
def _seen(prepared: Prepared, yield_: Yield) -> tuple[Evaluated, dict[str, Mapping[str, Tensor]]]:
    """Held-out rows, and what else is looked at."""
    module, labels = prepared.module.eval(), prepared.data.labels
    device = next(module.parameters()).device
    main = HeldOut("", prepared.held_out, prepared.judge, prepared.recipe.judged_as, device, labels)
    found = main.look(module, yield_)
    beside = {name: each.look(module, yield_).tensors for name, each in looks(prepared).items()}
    return Evaluated.of(found.tensors, labels), beside
