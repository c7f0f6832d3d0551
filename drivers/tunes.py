"""Tuning as a driver sees it: a job on a model that is loaded, what it will take, and what is told of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .contract import ModelSource, Row


@dataclass(frozen=True)
class TuneJob:
    """Adapt the loaded model `model` with the files of `data`.

    `recipe` has the fields of `llmos.syscalls.types.TuneRecipe`. The result is written into the folder `folder`, which
    is empty. `keep` is for checkpoints and outlives the process: what lies there when a job begins is gone on from.
    `version` and `base_path` say what the model was made of, for the lineage of the result. `models` are other loaded
    ones that the recipe names, by their names there: a teacher, adapters that were learned before.
    """

    id: str
    model: str
    recipe: Mapping[str, Any]
    data: ModelSource
    folder: Path
    keep: Path
    work_class: str = "background"
    version: str = ""
    base_path: str = ""
    models: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class TunePlan:
    """What a job will take: rows of `what="tuning"` with `predicted` bytes, optimizer steps, and tokens of training in
    all. `facts` are plain values for people and for the record of the run, such as `data_sha256`."""

    rows: Sequence[Row]
    steps: int
    tokens: int
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class TunePlannedEvent:
    """What a job would take, of which `plan_tune` did not say it at once; a FailedEvent says why it cannot be."""

    id: str
    plan: TunePlan


@dataclass(frozen=True)
class TuneProgressEvent:
    """`step` of `steps` are done. `values` by name: loss, learning_rate, grad_norm, tokens_per_s, left_s, peak_bytes;
    of held-out rows eval_loss and what else is known of them.

    `stage` is train, evaluate, checkpoint (one has been written and would be gone on from), trial (one of a search has
    begun or ended) or export. `facts` are plain values that replace those of the plan which have the same names.
    """

    id: str
    step: int
    steps: int
    values: Mapping[str, float] = field(default_factory=dict)
    stage: str = "train"
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class TuneDoneEvent:
    """The last event of a job that did not fail: `reason` is done (the result lies in its folder, `manifest` is what it
    is) or cancelled."""

    id: str
    reason: str
    values: Mapping[str, float] = field(default_factory=dict)
    manifest: Mapping[str, Any] = field(default_factory=dict)


TuneEvent = TunePlannedEvent | TuneProgressEvent | TuneDoneEvent
