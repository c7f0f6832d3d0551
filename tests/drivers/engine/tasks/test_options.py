"""Options are checked by name, type and range."""

from __future__ import annotations

from typing import Any

import pytest

from llmos.drivers.engine.tasks.options import Options
from llmos.syscalls.errors import BadArgument

KNOWN = {"top_k": "how many", "labels": "which", "flag": "whether", "word": "what", "weight": "how much"}


def options(**given: Any) -> Options:
    return Options("paint", KNOWN, given)


def test_defaults_and_values() -> None:
    empty, full = options(), options(top_k=3, labels=("a",), flag=True, word="x")
    assert (empty.whole("top_k", 5), full.whole("top_k", 5)) == (5, 3)
    assert (empty.flag("flag", default=False), full.flag("flag", default=False)) == (False, True)
    assert (empty.text("word", "w"), full.text("word", "w")) == ("w", "x")
    assert (empty.choice("word", "y", "xy"), full.choice("word", "y", "xy")) == ("y", "x")
    assert (empty.number("weight", 1.5), options(weight=-2).number("weight", 1.5)) == (1.5, -2.0)
    assert (empty.texts("labels", ()), full.texts("labels")) == ([], ["a"])
    assert ("top_k" in full, "top_k" in empty, "top_k" in options(top_k=None)) == (True, False, False)


def test_an_unknown_option_is_told_what_is_near_or_what_there_is() -> None:
    with pytest.raises(BadArgument, match="did you mean top_k") as error:
        options(topk=1)
    assert (error.value.name, error.value.want) == ("topk", "top_k, labels, flag, word, weight")
    with pytest.raises(BadArgument, match="it takes top_k, labels"):
        options(zebra=1)
    with pytest.raises(BadArgument, match="no options"):
        Options("paint", {}, {"zebra": 1})


@pytest.mark.parametrize(
    ("ask", "given"),
    [
        (lambda o: o.whole("top_k", 5), {"top_k": -1}), (lambda o: o.whole("top_k", 5), {"top_k": True}),
        (lambda o: o.whole("top_k", 5), {"top_k": "3"}), (lambda o: o.flag("flag", default=True), {"flag": 1}),
        (lambda o: o.text("word", ""), {"word": 3}), (lambda o: o.choice("word", "x", ("x",)), {"word": "y"}),
        (lambda o: o.choice("word", "x", ("x",)), {"word": ["x"]}), (lambda o: o.texts("labels"), {}),
        (lambda o: o.texts("labels"), {"labels": []}), (lambda o: o.texts("labels"), {"labels": [""]}),
        (lambda o: o.texts("labels", ()), {"labels": "ab"}), (lambda o: o.texts("labels"), {"labels": [1]}),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_by_name(ask: Any, given: dict[str, Any]) -> None:
    with pytest.raises(BadArgument) as error:
        ask(options(**given))
    assert error.value.name in KNOWN and error.value.want
