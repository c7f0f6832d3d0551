"""What a search tries: the map `search` of a recipe, checked whole against the recipe before any work."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llmos.syscalls.errors import BadArgument

from ..checked import Checked
from ..metrics.by_objective import SMALLER_IS_BETTER
from ..recipe import Recipe

SAMPLERS = ("tpe", "random")
"""Tree-structured Parzen estimators (Bergstra et al. 2011), or chance alone."""
PRUNERS = ("hyperband", "median", "none")
"""Which trials end early: by brackets of rungs (arXiv:1603.06560), those below the median, or none."""
DIRECTIONS = ("", "minimize", "maximize")
MOST = 1000
"""Trials where only time bounds them."""
TOGETHER = 32
"""Trials at once, at most."""

_FIELDS: Mapping[str, str] = {
    "space": "a map of fields", "trials": "how many", "parallel": "trials at once", "metric": "of held-out rows",
    "direction": "minimize or maximize", "sampler": ", ".join(SAMPLERS), "pruner": ", ".join(PRUNERS),
    "device_seconds": "of computing", "seconds": "of waiting",
}  # fmt: skip
_RANGE: Mapping[str, str] = {"low": "a number", "high": "a number", "log": "true or false", "step": "a number"}

_FIXED = frozenset({
    "search", "options", "objective", "eval_fraction", "promote_if", "checkpoint_every", "options.labels",
    "options.columns", "options.evaluate_every",
})  # fmt: skip
"""What all trials have in common: else they could not be compared."""

_CLASSES = ("accuracy", "precision_macro", "recall_macro", "f1_macro")
METRICS: Mapping[str, tuple[str, ...]] = {
    "causal-lm": ("loss", "perplexity", "accuracy"),
    "masked-lm": ("loss", "accuracy"),
    "seq2seq": ("loss", "perplexity", "accuracy"),
    "classification": ("loss", *_CLASSES),
    "multi-label": ("loss", "accuracy", "exact_match", "f1_micro"),
    "regression": ("loss", "mean_absolute_error", "mae", "mse"),
    "token-classification": ("loss", *_CLASSES, "entity_f1"),
    "question-answering": ("loss", "exact_match", "f1"),
    "embedding": ("loss", "accuracy", "mrr"),
    "preference": ("loss", "accuracy", "margin"),
    "multiple-choice": ("loss", "accuracy"),
}
"""For each objective, the figures of held-out rows that a search can go by."""

_SMALLER = SMALLER_IS_BETTER | {"mean_absolute_error"}


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included: `whole` ones, even in their logarithm, `step` apart (0: any)."""

    name: str
    low: float
    high: float
    log: bool = False
    step: float = 0.0
    whole: bool = False

    @property
    def ends(self) -> tuple[Any, ...]:
        """What bounds it."""
        return (self.low, self.high)


@dataclass(frozen=True)
class Choice:
    """One of some values, in no order."""

    name: str
    among: tuple[Any, ...]

    @property
    def ends(self) -> tuple[Any, ...]:
        """All of them."""
        return self.among


Dimension = Range | Choice


@dataclass(frozen=True)
class Search:
    """A checked search.

    Attributes:
        space: what is tried, by name: `FIELD` of the recipe or `options.NAME`.
        trials: at most.
        parallel: trials that are under way at once.
        metric: a figure of held-out rows without its `eval_`.
        maximize: whether a larger one is better.
        device_seconds: of computing in all, 0 for any.
        seconds: since it began, while it was under way, 0 for any.
        seed: of the recipe.
    """

    space: tuple[Dimension, ...]
    trials: int
    parallel: int
    metric: str
    maximize: bool
    sampler: str
    pruner: str
    device_seconds: float
    seconds: float
    seed: int

    @classmethod
    def of(cls, recipe: Mapping[str, Any]) -> Search:
        """Check the map `search` of a recipe, and the recipe with each end of each dimension.

        Raises:
            BadArgument: a field is unknown, cannot be searched or out of range; a range is empty; a list has fewer than
                two values, or values of several types; the metric is none of the objective's; nothing is held out; no
                budget is given.
        """
        base = Recipe.of(without(recipe))
        asked = {str(name): value for name, value in dict(recipe["search"]).items() if value is not None}
        given = Checked("search", _FIELDS, asked)
        if not base.eval_fraction:
            want = "an eval_fraction above 0"
            said = f"a search goes by held-out rows; it needs {want}, 0.1 say"
            raise BadArgument(said, name="eval_fraction", got="0", want=want)
        if base.generate is not None:
            want = "a search first, and then generate with the best values"
            said = f"generate and search do not go together: trials write no answers; make {want}"
            raise BadArgument(said, name="generate", got="search", want=want)
        if not any(name in given for name in ("trials", "device_seconds", "seconds")):
            want = "trials, device_seconds or seconds"
            raise BadArgument(f"a search needs a budget: {want}", name="search", want=want)
        metric = _metric(given, base.objective)
        direction = given.choice("direction", "", DIRECTIONS)
        made = cls(
            space=_space(recipe, asked.get("space")),
            trials=given.whole("trials", MOST, 1), parallel=given.whole("parallel", 1, 1), metric=metric,
            maximize=direction == "maximize" or (not direction and metric not in _SMALLER),
            sampler=given.choice("sampler", "tpe", SAMPLERS), pruner=given.choice("pruner", "hyperband", PRUNERS),
            device_seconds=given.more("device_seconds", 0.0) if "device_seconds" in given else 0.0,
            seconds=given.more("seconds", 0.0) if "seconds" in given else 0.0, seed=base.seed,
        )  # fmt: skip
        if made.trials > MOST or made.parallel > TOGETHER:
            name, most = ("trials", MOST) if made.trials > MOST else ("parallel", TOGETHER)
            got = getattr(made, name)
            raise BadArgument(f"{name} is {got}, at most {most}", name=name, got=str(got), want=f"1 to {most}")
        return dataclasses.replace(made, parallel=min(made.parallel, made.trials))

    def better(self, value: float, than: float | None) -> bool:
        """Whether a value of the metric is better than another, or than none."""
        return than is None or (value > than if self.maximize else value < than)


def without(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe without its search."""
    return {name: value for name, value in recipe.items() if name != "search"}


def replaced(recipe: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe of a trial: with other values, by name, and without its search."""
    made = without(recipe)
    for name, value in values.items():
        *path, last = name.split(".")
        target = made
        for part in path:
            below = target.get(part)
            target[part] = target = dict(below) if isinstance(below, Mapping) else {}
        target[last] = value
    return made


def _metric(given: Checked, objective: str) -> str:
    name = given.text("metric", "eval_loss")
    known = METRICS[objective]
    if name.removeprefix("eval_") not in known:
        want = ", ".join(f"eval_{each}" for each in known)
        raise BadArgument(f"{objective} has no figure {name}; it has {want}", name="metric", got=name, want=want)
    return name.removeprefix("eval_")


def _space(recipe: Mapping[str, Any], given: Any) -> tuple[Dimension, ...]:
    if not isinstance(given, Mapping) or not given:
        want = 'a map such as {"learning_rate": {"low": 1e-5, "high": 1e-2, "log": true}, "rank": [4, 8]}'
        raise BadArgument(f"a search needs a space: {want}", name="space", got=repr(given)[:80], want=want)
    made = tuple(_dimension(str(name), value) for name, value in sorted(given.items(), key=lambda pair: str(pair[0])))
    for name, end in ((each.name, end) for each in made for end in each.ends):
        try:
            Recipe.of(replaced(recipe, {name: end}))
        except BadArgument as error:
            raise _wrong(name, end, str(error)) from error
    return made


def _dimension(name: str, given: Any) -> Dimension:
    if name in _FIXED:
        raise BadArgument(f"{name} is the same in all trials: it cannot be searched", name=name, want="another field")
    if isinstance(given, Mapping):
        return _range(name, given)
    if not isinstance(given, list | tuple):
        raise _wrong(name, given, "it is neither a list of values nor a map with low and high")
    among = tuple(_plain(value) for value in given)
    if len({repr(value) for value in among}) < max(2, len(among)):
        raise _wrong(name, given, "it needs at least two values, each once")
    kinds = {type(value) for value in among}
    if len(kinds) > 1 and kinds != {int, float}:
        raise _wrong(name, given, "its values are of several types")
    return Choice(name, among)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _range(name: str, given: Mapping[str, Any]) -> Range:
    checked = Checked(f"search.space.{name}", _RANGE, {str(key): value for key, value in given.items()})
    for end in ("low", "high"):
        if end not in checked:
            raise _wrong(name, given, f"it has no {end}")
    low, high, step = checked.number("low", 0.0), checked.number("high", 0.0), checked.within("step", 0.0)
    log, whole = checked.flag("log", False), _whole(name)
    if low >= high:
        raise _wrong(name, given, f"low has to be below high, and {low:g} is not below {high:g}")
    if log and low <= 0:
        raise _wrong(name, given, "a logarithmic range begins above 0")
    if log and step:
        raise _wrong(name, given, "a logarithmic range has no step")
    if whole and not all(number.is_integer() for number in (low, high, step)):
        raise _wrong(name, given, "its values are integers")
    if step > high - low:
        raise _wrong(name, given, "its step is larger than the range")
    return Range(name, int(low), int(high), log, int(step), True) if whole else Range(name, low, high, log, step)


def _whole(name: str) -> bool:
    """Whether a field is an integer. Raises BadArgument for what is no number; unknown ones are refused later."""
    kinds: dict[str, str] = {field.name: str(field.type) for field in dataclasses.fields(Recipe)}
    kind = kinds.get(name.rpartition(".")[2], "float")
    if kind.partition(" ")[0] not in ("int", "float"):
        raise _wrong(name, "a range", "it is no number; give a list of values")
    return kind.startswith("int")


def _wrong(name: str, got: Any, why: str) -> BadArgument:
    want = "a list of values, or a map with low and high"
    return BadArgument(f"search.space.{name}: {why}", name=f"search.space.{name}", got=repr(got)[:80], want=want)
