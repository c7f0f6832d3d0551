"""What a report says in a terminal."""

from __future__ import annotations

from typing import Any

import tuning_reports
from llmos.userland.reports import words


def text(report: dict[str, Any], short: bool = False) -> str:
    return "\n".join(words.lines(report, short))


def test_figures_come_with_intervals_and_what_to_think_of_them() -> None:
    said = text(tuning_reports.run()["facts"]["report"])
    first, second, *_ = said.splitlines()
    assert first.split() == ["before", "after", "difference"]
    assert second.startswith("accuracy") and "0.5 [" in second and "0.9 [" in second and second.endswith("better")
    assert "holds 95% of 200 bootstrap samples" in said


def test_what_may_be_chance_is_said() -> None:
    apart = [0.1, -0.2, 0.3]
    figure: dict[str, Any] = {"before": [1.0, 0.5, 1.5], "after": [1.1, 0.6, 1.6], "difference": apart, "better": ""}
    assert words.cells(figure)[2:] == ("+0.1 [-0.2, +0.3]", "may be chance")
    alone = {"before": [1.0], "after": [None], "difference": [None], "better": ""}
    assert words.cells(alone) == ("1", "–", "–", "too few to tell")
    assert words.cells({**figure, "better": "before"})[3] == "worse"


def test_a_confusion_matrix_has_shades() -> None:
    assert list(words.confusion(("no", "yes"), [[4, 0], [1, 1]])) == [
        "      no  yes", "no   4 █  0", "yes  1 ▒  1 ▒",
    ]  # fmt: skip


def test_the_short_version_has_no_curves_and_no_data() -> None:
    report = tuning_reports.run()["facts"]["report"]
    long, short = text(report), text(report, short=True)
    assert "ROC" in long and "worst mistakes" in long and "a <b>film</b> & more" in long and "calibration" in long
    assert "before, area" in long and "held out" in long
    assert not any(part in short for part in ("ROC", "film", "calibration", "held out")) and "bad" in short


def test_many_classes_are_in_the_long_version_alone() -> None:
    report = tuning_reports.run(tuple(f"class {n}" for n in range(12)))["facts"]["report"]
    assert "class 11" in text(report) and "class 11" not in text(report, short=True)


def test_answers_and_groups_and_what_was_left_out() -> None:
    report = {
        "figures": {}, "cut": ["classes"],
        "texts": {"rows": 2, "tokens": 32,
                  "examples": [{"prompt": "Q", "wanted": f"W{n}", "before": "B", "after": "A"} for n in range(4)]},
        "groups": {"column": "town", "each": {"a": {"rows": 3, "accuracy": 0.5, "f1_macro": 0.25}},
                   "differences": {"good": [0.125, None, 0.75]}, "differences_before": {"good": [0.5, 0.5, 0.5]}},
    }  # fmt: skip
    said = text(report)
    assert "2 answers written, up to 32 tokens each" in said and "wanted: W3" in said and "after:  A" in said
    assert "groups by town, after" in said and "0.125" in said and "0.75" in said
    assert "left out, as there was too much of it: classes" in said
    short = text(report, short=True)
    assert "wanted: W1" in short and "wanted: W2" not in short


def test_rows_worth_a_label_are_named_where_they_stand() -> None:
    rows = [{"place": f"raw.jsonl:{n}", "text": f"words {n}", "said": "good", "doubt": 0.9} for n in range(7)]
    report = {"figures": {}, "unlabelled": {"rows": 40, "sure": [0.25, 0.75], "to_label": rows}}
    long, short = text(report), text(report, short=True)
    assert "40 rows without labels: sure of 0.25 of them before, 0.75 after" in long
    assert "raw.jsonl:6  doubt 0.9, said good: words 6" in long and "(5 of 7)" not in long
    assert "raw.jsonl:4" in short and "raw.jsonl:5" not in short and "(5 of 7)" in short
    bare = text({"figures": {}, "unlabelled": {"rows": 40, "sure": [None, 0.75], "to_label": []}})
    assert "worth" not in bare and "sure of – of" in bare


def test_points_that_lie_apart_are_joined() -> None:
    assert words.joined([(0.0, 0.0), (0.0, 0.5), (1.0, 0.5)], 4) == [
        (0.0, 0.0), (0.0, 0.25), (0.0, 0.5), (0.25, 0.5), (0.5, 0.5), (0.75, 0.5), (1.0, 0.5),
    ]  # fmt: skip
    assert words.joined([]) == []
