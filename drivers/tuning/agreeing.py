"""What of a recipe fits only together with something else."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from llmos.syscalls.errors import BadArgument

from . import words as known

if TYPE_CHECKING:
    from .recipe import Recipe


class Refusal(NamedTuple):
    """What is wrong where `wrong` holds."""

    wrong: bool
    name: str
    got: str
    said: str
    want: str


def agree(recipe: Recipe) -> None:
    """Raises BadArgument for what does not go together; of several tasks each is looked at by itself as well."""
    every = [*_fields(recipe), *_several(recipe)] if recipe.tasks else [*_fields(recipe), *_objective(recipe)]
    for refusal in every:
        if refusal.wrong:
            raise BadArgument(refusal.said, name=refusal.name, got=refusal.got, want=refusal.want)
    for task in recipe.tasks:
        agree(replace(recipe, objective=task.objective or recipe.objective, tasks=()))


def _fields(recipe: Recipe) -> Iterator[Refusal]:
    """Whatever the objective is."""
    yield Refusal(
        bool(recipe.early_stopping and not recipe.eval_fraction), "early_stopping", str(recipe.early_stopping),
        "early_stopping looks at held-out rows, and eval_fraction is 0: it needs an eval_fraction above 0, 0.1 say",
        "an eval_fraction above 0",
    )  # fmt: skip
    yield Refusal(
        recipe.result == "adapter" and recipe.method in (*known.WHOLE, known.BOTTLENECK), "result", recipe.result,
        f"{recipe.method} has no {recipe.result} as its result; it is model", "model",
    )  # fmt: skip
    yield Refusal(
        recipe.generate is not None and recipe.train_on == "all", "generate", "train_on all",
        "generate answers prompts, and with train_on all nothing says where an answer begins; it is for "
        "train_on answers",
        "train_on answers",
    )  # fmt: skip
    yield Refusal(
        recipe.orthogonal is not None and recipe.method not in known.LOW_RANK, "orthogonal", recipe.method,
        f"orthogonal is about matrices of low rank, which {recipe.method} has none of; it is for "
        f"{', '.join(known.LOW_RANK)}", ", ".join(known.LOW_RANK),
    )  # fmt: skip
    beside = "unlabelled rows" if recipe.unlabelled is not None else recipe.method
    both = recipe.unlabelled is not None or recipe.method in known.PROMPTS
    yield Refusal(
        recipe.teacher is not None and both, "teacher", beside,
        f"teacher and {beside} do not go together; take one of them", "one of them",
    )  # fmt: skip


def _objective(recipe: Recipe) -> Iterator[Refusal]:
    """What has a meaning for some objectives alone."""
    smoothing = recipe.label_smoothing
    classes, scored, written = known.CLASSES, known.SCORED, known.WRITTEN
    smooth = ("causal-lm", "masked-lm", "seq2seq", "classification")
    for name, given, got, why, fits in (
        ("class_weights", recipe.class_weights, recipe.class_weights, "has no meaning for the objective", classes),
        ("group", recipe.group, recipe.group, "compares groups of rows by their class, which is not", classes[:1]),
        ("unlabelled", recipe.unlabelled, recipe.objective, "has classes guessed, which are none of", classes),
        ("generate", recipe.generate, recipe.objective, "has answers written, which are none of", written),
        ("teacher", recipe.teacher, recipe.objective, "is asked for scores of classes, which are none of", scored),
        ("r_drop", recipe.r_drop, f"{recipe.r_drop:g}", "compares scores of classes, which are none of", scored),
        ("contrast", recipe.contrast != "infonce", recipe.contrast, "has no meaning for the objective", ("embedding",)),
        ("label_smoothing", smoothing, f"{smoothing:g}", "has no meaning for the objective", smooth),
    ):
        want = ", ".join(fits)
        said = f"{name} {why} {recipe.objective}; it is for {want}"
        yield Refusal(bool(given) and recipe.objective not in fits, name, got, said, want)


def _several(recipe: Recipe) -> Iterator[Refusal]:
    """What is for one task alone."""
    for name in ("earlier", "unlabelled", "teacher", "r_drop", "group", "class_weights", "generate"):
        said = f"{name} and tasks do not go together; take one of them"
        yield Refusal(bool(getattr(recipe, name)), name, "tasks", said, "one of them")
