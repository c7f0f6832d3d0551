"""What may be searched, and what is refused before any work."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmos.drivers.tuning.metrics.by_objective import MAIN
from llmos.drivers.tuning.recipe import Recipe
from llmos.drivers.tuning.words import OBJECTIVES
from llmos.drivers.tuning.search.space import METRICS, Choice, Range, Search, replaced, without
from llmos.syscalls.errors import BadArgument

BASE: dict[str, Any] = {"method": "lora", "eval_fraction": 0.1}
SPACE: dict[str, Any] = {"learning_rate": {"low": 1e-5, "high": 1e-2, "log": True}}


def of(search: dict[str, Any], **fields: Any) -> Search:
    return Search.of({**BASE, **fields, "search": {"space": SPACE, "trials": 3, **search}})


def refused(search: dict[str, Any], name: str, said: str, **fields: Any) -> None:
    with pytest.raises(BadArgument, match=said) as raised:
        of(search, **fields)
    assert raised.value.name == name


def test_a_space_of_ranges_and_choices() -> None:
    made = of({
        "space": {**SPACE, "rank": [4, 8], "options.label_smoothing": {"low": 0, "high": 0.2},
                  "batch_size": {"low": 2, "high": 8, "step": 2}, "target_modules": [["q_proj"], ["q_proj", "v_proj"]]},
        "trials": 20, "parallel": 4, "metric": "eval_accuracy", "device_seconds": 60, "sampler": "random",
    }, seed=7)  # fmt: skip
    assert made.space == (
        Range("batch_size", 2, 8, step=2, whole=True), Range("learning_rate", 1e-5, 1e-2, log=True),
        Range("options.label_smoothing", 0.0, 0.2), Choice("rank", (4, 8)),
        Choice("target_modules", (["q_proj"], ["q_proj", "v_proj"])),
    )  # fmt: skip
    assert (made.trials, made.parallel, made.metric, made.maximize, made.seed) == (20, 4, "accuracy", True, 7)
    assert (made.device_seconds, made.seconds, made.sampler, made.pruner) == (60, 0, "random", "hyperband")
    assert made.better(2.0, 1.0) and made.better(0.0, None) and not made.better(1.0, 1.0)


def test_what_is_not_said_has_a_sense() -> None:
    made = of({})
    assert (made.metric, made.maximize, made.parallel) == ("loss", False, 1) and made.better(1.0, 2.0)
    assert of({"direction": "maximize"}).maximize
    assert of({"parallel": 8}).parallel == 3  # no more than there are trials


@pytest.mark.parametrize(
    ("space", "name", "said"),
    [
        ({}, "space", "needs a space"),
        ("rank", "space", "needs a space"),
        ({"rnak": [1, 2]}, "search.space.rnak", "did you mean rank"),
        ({"options.smoothing": [0, 0.1]}, "search.space.options.smoothing", "no option"),
        ({"learning_rate": 1e-3}, "search.space.learning_rate", "neither a list"),
        ({"learning_rate": {"low": 1e-3}}, "search.space.learning_rate", "no high"),
        ({"learning_rate": {"low": 1e-3, "high": 1e-3}}, "search.space.learning_rate", "0.001 is not below 0.001"),
        ({"learning_rate": {"low": -1, "high": 1}}, "search.space.learning_rate", "above 0"),
        ({"weight_decay": {"low": 0, "high": 1, "log": True}}, "search.space.weight_decay", "begins above 0"),
        ({"learning_rate": {"low": 1, "high": 2, "lgo": True}}, "lgo", "no option 'lgo'"),
        ({"rank": {"low": 1, "high": 2.5}}, "search.space.rank", "integers"),
        ({"rank": {"low": 1, "high": 4, "step": 8}}, "search.space.rank", "larger than the range"),
        ({"rank": {"low": 1, "high": 4, "step": 1, "log": True}}, "search.space.rank", "no step"),
        ({"rank": []}, "search.space.rank", "at least two"),
        ({"rank": [4, 4]}, "search.space.rank", "each once"),
        ({"rank": [4, "eight"]}, "search.space.rank", "several types"),
        ({"rank": [0, 4]}, "search.space.rank", "at least 1"),
        ({"schedule": {"low": 1, "high": 2}}, "search.space.schedule", "no number"),
        ({"schedule": ["linear", "cosin"]}, "search.space.schedule", "expected constant"),
        ({"objective": ["causal-lm", "seq2seq"]}, "objective", "the same in all trials"),
        ({"eval_fraction": [0.1, 0.2]}, "eval_fraction", "the same in all trials"),
    ],
)
def test_a_space_that_means_nothing_is_refused(space: Any, name: str, said: str) -> None:
    refused({"space": space}, name, said)


def test_a_search_that_means_nothing_is_refused() -> None:
    refused({}, "eval_fraction", "goes by held-out rows", eval_fraction=0.0)
    refused({}, "generate", "trials write no answers; make a search first", options={"generate": True})
    refused({"metric": "eval_f1"}, "metric", "it has eval_loss, eval_perplexity")
    refused({"trials": None}, "search", "trials, device_seconds or seconds")
    refused({"trials": 0}, "trials", "at least 1")
    refused({"trials": 10**6}, "trials", "at most 1000")
    refused({"parallel": 99, "trials": 100}, "parallel", "at most 32")
    refused({"sampler": "grid"}, "sampler", "expected tpe")
    refused({"pruner": "asha"}, "pruner", "expected hyperband")
    refused({"trails": 3}, "trails", "did you mean trials")
    refused({"seconds": -1}, "seconds", "above 0")
    refused({}, "rank", "at least 1", rank=0)  # the recipe itself


def test_each_objective_has_figures_to_go_by() -> None:
    assert METRICS.keys() >= OBJECTIVES.keys()
    missing = {name for name, main in MAIN.items() if main not in METRICS[name]}
    assert missing == {"masked-lm"}  # of which an evaluation tells no perplexity


def test_a_trial_has_its_values_and_no_search() -> None:
    recipe = {"method": "lora", "options": {"clip": 2.0}, "search": {"trials": 1}}
    made = replaced(recipe, {"rank": 4, "options.label_smoothing": 0.1, "options.augment.typos": 0.2})
    assert made == {
        "method": "lora", "rank": 4, "options": {"clip": 2.0, "label_smoothing": 0.1, "augment": {"typos": 0.2}},
    }  # fmt: skip
    assert recipe["options"] == {"clip": 2.0} and without(recipe) == {"method": "lora", "options": {"clip": 2.0}}


VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-9, 9), st.floats(), st.text(max_size=4),
    st.lists(st.one_of(st.integers(-9, 9), st.floats(0, 1), st.sampled_from(["linear", "cosine"])), max_size=3),
    st.dictionaries(
        st.sampled_from(["low", "high", "log", "step", "other"]),
        st.one_of(st.integers(-9, 9), st.floats(), st.booleans()),
    ),
)  # fmt: skip
NAMES = st.sampled_from(["learning_rate", "rank", "schedule", "options.clip", "packing", "nothing", "options", "a.b.c"])


@given(st.one_of(VALUES, st.dictionaries(NAMES, VALUES, max_size=3)))
def test_any_space_is_taken_or_refused_with_a_reason(space: Any) -> None:
    """And each end of what is taken makes a recipe."""
    try:
        made = of({"space": space})
    except BadArgument as error:
        assert str(error) and error.name
        return
    for dimension in made.space:
        for end in dimension.ends:
            Recipe.of(replaced({**BASE}, {dimension.name: end}))
