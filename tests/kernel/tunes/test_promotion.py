"""A condition over figures: read as a tree, never executed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmos.kernel.tunes.promotion import LONGEST, Rule
from llmos.syscalls.errors import BadArgument

FIGURES = {"loss": 0.5, "before": 1.0, "f1": 0.8, "zero": 0.0}


def holds(text: str) -> bool:
    return Rule.of(text).judge(FIGURES).code == "tune.promoted"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("loss < before", True), (" loss < 0.4", False), ("loss <= 0.5 < before", True), ("1 < loss < before", False),
        ("loss < 0.98 * before and f1 >= 0.8", True), ("loss > before or f1 > 0.7", True),
        ("not loss > before", True), ("not (loss < before)", False), ("-loss < +zero", True),
        ("(loss + f1) / 2 == 0.65", True), ("before - loss != 0.5", False), ("loss > 1 and f1 / zero > 1", False),
        ("f1 / zero > 1", False), ("1 < 2", True),
    ],
)  # fmt: skip
def test_what_holds(text: str, wanted: bool) -> None:
    assert holds(text) is wanted


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "cannot be read"), ("loss < )", "cannot be read at character 8"), ("loss <", "cannot be read"),
        ("loss", "is a number, not a condition"),
        ("loss + 1", "is a number"), ("loss and f1 > 1", "needs a condition, not a number, in 'loss'"),
        ("(loss < 1) + 1 > 2", "needs a number, not a condition"), ("not loss", "needs a condition"),
        ("-(loss < 1) > 2", "needs a number"), ("(loss < 1) < 2", "needs a number"), ("True", "'True', which is no"),
        ("loss < 'a'", "which is no figure"), ("open('f') < 1", "which is no figure"),
        ("loss.real < 1", "is no figure"),
        ("loss ** 2 < 1", "which is no figure"), ("loss in f1", "which is no figure"), ("~loss < 1", "is no figure"),
        ("lambda: 1", "which is no figure"), ("loss < 1 " + " " * LONGEST + "or f1 > 1", "at most 500 are read"),
        ("-" * 490 + "1 < 2", "nested more than 50 deep"), ("loss < 1e999", "which is no figure"),
        (f"loss * {'9' * 400} < 1", "which is no figure"),
        ("(" * 240 + "loss < 1" + ")" * 240, "cannot be read"), ("loss < 1\0", "cannot be read"),
    ],
)  # fmt: skip
def test_what_is_no_condition_is_refused_with_its_place(text: str, why: str) -> None:
    with pytest.raises(BadArgument, match=why) as caught:
        Rule.of(text)
    assert caught.value.name == "promote_if" and "eval_loss < eval_loss_before" in caught.value.want


def test_the_reason_has_the_numbers_and_the_rule() -> None:
    reason = Rule.of("loss < before and f1 > 0.9").judge(FIGURES)
    assert (reason.code, reason.numbers) == ("tune.candidate", {"loss": 0.5, "before": 1.0, "f1": 0.8})
    assert reason.text == "it is not promoted: loss 0.5, before 1, f1 0.8" and reason.rule.endswith("f1 > 0.9")
    assert "rollback" in reason.change


def test_a_figure_that_is_not_known_promotes_nothing() -> None:
    reason = Rule.of("loss < 1 or f2 > 0").judge(FIGURES)
    assert reason.code == "tune.candidate" and "f2 is not known; figures here: before, f1, loss, zero" in reason.text
    assert "figures here: none" in Rule.of("f2 > 0").judge({}).text
    assert "loss is not known" in Rule.of("not loss > 1").judge({"loss": float("nan")}).text
    assert Rule.of("loss * 1e299 * 1e299 > 1").judge(FIGURES).code == "tune.promoted", "no more than infinite"
    assert "by zero" in Rule.of("1 / zero > 0").judge(FIGURES).text


NUMBERS = st.sampled_from([*FIGURES, "2", "0.25"])
SUMS = st.recursive(
    NUMBERS, lambda inner: st.builds("({} {} {})".format, inner, st.sampled_from("+-*"), inner), max_leaves=4
)
TESTS = st.builds("{} {} {}".format, SUMS, st.sampled_from(["<", "<=", ">", ">=", "==", "!="]), SUMS)
CONDITIONS = st.recursive(
    TESTS,
    lambda inner: st.one_of(
        st.builds("({} {} {})".format, inner, st.sampled_from(["and", "or"]), inner),
        st.builds("not ({})".format, inner),
    ),
    max_leaves=4,
)


@given(CONDITIONS)
def test_it_says_what_python_says(text: str) -> None:
    assert holds(text) is bool(eval(text, {}, dict(FIGURES)))


@given(st.text(max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        Rule.of(text).judge(FIGURES)
    except BadArgument as error:
        assert error.name == "promote_if"
