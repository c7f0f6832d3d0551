"""How a model is to be tuned: a plain mapping, checked whole, as one frozen object. Nothing is read here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llmos.syscalls.errors import BadArgument

from .agreeing import agree
from .checked import Checked
from .options.adversarial import Adversarial
from .options.augment import Augment
from .options.earlier import Earlier
from .options.generate import Generate
from .options.orthogonal import Orthogonal
from .options.tasks import Task, tasks_of
from .options.teacher import Teacher
from .options.unlabelled import Unlabelled
from .words import (
    ACTIVATIONS, CONTRASTS, LONG, METHODS, OBJECTIVES, PRECISIONS, RESULTS, SCHEDULES, SEVERAL, TRAINED, WEIGHTS,
)  # fmt: skip

_FIELDS: Mapping[str, str] = {
    "method": ", ".join(METHODS), "objective": ", ".join(OBJECTIVES), "rank": "an integer of at least 1",
    "alpha": "a number above 0", "dropout": "0 to below 1", "target_modules": "names of layers",
    "epochs": "a number above 0", "max_steps": "an integer; 0 for none", "batch_size": "an integer of at least 1",
    "learning_rate": "a number above 0", "schedule": ", ".join(SCHEDULES), "warmup_ratio": "0 to below 1",
    "weight_decay": "a number of at least 0", "max_length": "tokens, at least 1", "packing": "true or false",
    "seed": "an integer", "eval_fraction": "0 to below 1", "promote_if": "a condition", "checkpoint_every": "steps",
    "options": "a map", "search": "a map; see `search/space.py`",
}  # fmt: skip

_OPTIONS: Mapping[str, str] = {
    "accumulation": "batches per step", "clip": "largest norm of the gradient; 0 for none",
    "label_smoothing": "0 to below 1", "gradient_checkpointing": "true or false", "evaluate_every": "steps",
    "early_stopping": "evaluations without gain", "beta1": "", "beta2": "", "epsilon": "", "layers": "how many move",
    "virtual_tokens": "how many are learned", "train_on": ", ".join(TRAINED), "long": ", ".join(LONG[1:]),
    "dedupe": "true or false", "labels": "names, in order", "columns": "field of the schema to column of the file",
    "modules_to_save": "names of layers", "temperature": "of contrastive losses", "beta": "of preference losses",
    "masked_share": "of tokens", "class_weights": "balanced, effective", "augment": "a map",
    "mixed_precision": "bf16", "r_drop": "weight of the divergence; 0 for none", "adversarial": "a map",
    "contrast": ", ".join(CONTRASTS), "margin": "of triplets", "result": ", ".join(RESULTS[1:]),
    "activation": ", ".join(ACTIVATIONS), "group": "a column of the data",
    "earlier": "a map", "unlabelled": "a map", "teacher": "a map", "orthogonal": "a map",
    "tasks": "a map of names to maps", "mixing": "temperature of drawing from tasks, above 0",
    "generate": "true, or a map",
}  # fmt: skip


@dataclass(frozen=True)
class Recipe:
    """A checked recipe. Fields are those of `TuneRecipe` and of its `options`.

    Attributes:
        max_steps: optimizer steps in place of `epochs`, 0 for those of the epochs.
        max_length: tokens of one row of a batch; None for the longest example.
        batch_size: rows in a batch; `accumulation` batches make a step.
        clip: the largest norm of a step's gradient, 0 for any.
        early_stopping: end after so many evaluations without a smaller held-out loss, 0 for never.
        evaluate_every: steps between evaluations, 0 for one per epoch.
        checkpoint_every: steps between checkpoints, 0 for one per epoch.
        columns: for fields of a schema, the columns of the file that hold them.
        class_weights: how rare classes count more (`data/weights.py`); empty for all alike.
        augment: changed copies of rows; None for none.
        mixed_precision: the dtype of products, empty for that of the weights.
        r_drop: weight of the divergence of two passes with other dropout (`aids.r_drop`), 0 for one pass.
        adversarial: one more pass on moved embeddings; None for none.
        activation: inside a bottleneck, of which `rank` is the width.
        result: adapter or model; empty for whichever is served.
        group: the column of the data that names the group of a row, for figures of fairness; empty for none.
        contrast: how embeddings are told apart; `margin` is by how much in triplets.
        earlier: rows that the base has learned before; None for none.
        unlabelled: rows without labels, to learn from or to choose from; None for none.
        teacher: a model that is learned of as well; None for none.
        orthogonal: adapters whose directions are left to them; None for none.
        generate: held-out rows are answered before and after; None for no answers.
        tasks: several that are learned together; none for one. `mixing` is how much alike they are drawn: 1 by size.
    """

    method: str
    objective: str = "causal-lm"
    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    target_modules: tuple[str, ...] = ()
    epochs: float = 1.0
    max_steps: int = 0
    batch_size: int = 8
    learning_rate: float = 2e-4
    schedule: str = "cosine"
    warmup_ratio: float = 0.03
    weight_decay: float = 0.0
    max_length: int | None = None
    packing: bool = True
    seed: int = 0
    eval_fraction: float = 0.0
    promote_if: str = ""
    checkpoint_every: int = 0
    accumulation: int = 1
    clip: float = 1.0
    label_smoothing: float = 0.0
    gradient_checkpointing: bool = False
    evaluate_every: int = 0
    early_stopping: int = 0
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    layers: int = 1
    virtual_tokens: int = 20
    modules_to_save: tuple[str, ...] = ()
    temperature: float = 0.05
    beta: float = 0.1
    masked_share: float = 0.15
    train_on: str = "answers"
    long: str = ""
    dedupe: bool = True
    labels: tuple[str, ...] = ()
    columns: tuple[tuple[str, str], ...] = ()
    class_weights: str = ""
    augment: Augment | None = None
    mixed_precision: str = ""
    r_drop: float = 0.0
    adversarial: Adversarial | None = None
    contrast: str = "infonce"
    margin: float = 0.5
    result: str = ""
    activation: str = "gelu"
    group: str = ""
    earlier: Earlier | None = None
    unlabelled: Unlabelled | None = None
    teacher: Teacher | None = None
    orthogonal: Orthogonal | None = None
    generate: Generate | None = None
    tasks: tuple[Task, ...] = ()
    mixing: float = 1.0

    @property
    def judged_as(self) -> str:
        """The objective whose figures held-out rows have."""
        return SEVERAL if self.tasks else self.objective

    @classmethod
    def of(cls, mapping: Mapping[str, Any]) -> Recipe:
        """Check a recipe whole.

        Raises:
            BadArgument: a field or an option that is unknown, of another type or out of range.
        """
        given = Checked("tune", _FIELDS, {name: value for name, value in mapping.items() if value is not None})
        if "method" not in given:
            raise BadArgument("tune needs a method", name="method", want=_FIELDS["method"])
        options = mapping.get("options") or {}
        if not isinstance(options, Mapping):
            raise BadArgument(f"options is {options!r}, expected a map", name="options", want="a map")
        method = given.choice("method", "", tuple(METHODS))
        recipe = cls(
            **_main(given, method),
            **_extra(Checked("tune", _OPTIONS, {str(name): value for name, value in options.items()})),
        )
        agree(recipe)
        return recipe


def _main(given: Checked, method: str) -> dict[str, Any]:
    """The recipe's own fields."""
    return {
        "method": method,
        "objective": given.choice("objective", "causal-lm", tuple(OBJECTIVES)),
        "rank": given.whole("rank", 8, 1),
        "alpha": given.more("alpha", 16.0),
        "dropout": given.share("dropout", 0.0),
        "target_modules": tuple(given.texts("target_modules", ())),
        "epochs": given.more("epochs", 1.0),
        "max_steps": given.whole("max_steps", 0),
        "batch_size": given.whole("batch_size", 8, 1),
        "learning_rate": given.more("learning_rate", METHODS[method]),
        "schedule": given.choice("schedule", "cosine", SCHEDULES),
        "warmup_ratio": given.share("warmup_ratio", 0.03),
        "weight_decay": given.within("weight_decay", 0.0),
        "max_length": given.whole("max_length", 1, 1) if "max_length" in given else None,
        "packing": given.flag("packing", True),
        "seed": given.seed("seed"),
        "eval_fraction": given.share("eval_fraction", 0.0),
        "promote_if": given.text("promote_if", ""),
        "checkpoint_every": given.whole("checkpoint_every", 0),
    }


def _extra(given: Checked) -> dict[str, Any]:
    """The recipe's options."""
    return {
        "accumulation": given.whole("accumulation", 1, 1),
        "clip": given.within("clip", 1.0),
        "label_smoothing": given.share("label_smoothing", 0.0),
        "gradient_checkpointing": given.flag("gradient_checkpointing", False),
        "evaluate_every": given.whole("evaluate_every", 0),
        "early_stopping": given.whole("early_stopping", 0),
        "beta1": given.share("beta1", 0.9),
        "beta2": given.share("beta2", 0.999),
        "epsilon": given.more("epsilon", 1e-8),
        "layers": given.whole("layers", 1, 1),
        "virtual_tokens": given.whole("virtual_tokens", 20, 1),
        "modules_to_save": tuple(given.texts("modules_to_save", ())),
        "temperature": given.more("temperature", 0.05),
        "beta": given.more("beta", 0.1),
        "masked_share": given.within("masked_share", 0.15, above=0.0, below=1.0),
        "train_on": given.choice("train_on", "answers", TRAINED),
        "long": given.choice("long", "", LONG),
        "dedupe": given.flag("dedupe", True),
        "labels": tuple(given.texts("labels", ())),
        "columns": given.names("columns", {}),
        "class_weights": given.choice("class_weights", "", ("", *WEIGHTS)),
        "augment": Augment.of(given),
        "mixed_precision": given.choice("mixed_precision", "", PRECISIONS),
        "r_drop": given.within("r_drop", 0.0),
        "adversarial": Adversarial.of(given),
        "contrast": given.choice("contrast", "infonce", CONTRASTS),
        "margin": given.more("margin", 0.5),
        "result": given.choice("result", "", RESULTS),
        "activation": given.choice("activation", "gelu", ACTIVATIONS),
        "group": given.text("group", ""),
        "earlier": Earlier.of(given),
        "unlabelled": Unlabelled.of(given),
        "teacher": Teacher.of(given),
        "orthogonal": Orthogonal.of(given),
        "generate": Generate.of(given),
        "tasks": tasks_of(given, tuple(OBJECTIVES)),
        "mixing": given.more("mixing", 1.0),
    }
