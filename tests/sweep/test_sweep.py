"""Each causal type through the engine equals the library: a sample in every run, all of them in the slow one."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from architectures.build import tiny_model
from architectures.names import CAUSAL, IMPOSSIBLE, SAMPLE, VARIANTS
from sweep import report
from sweep.served import serve

TRIED = tuple(name for name in (*CAUSAL, *VARIANTS) if name not in IMPOSSIBLE)
LINES = {line.split("`")[1]: line for line in report.PAGE.read_text().splitlines() if line.startswith("| `")}


@pytest.fixture(scope="module", autouse=True)
def _quiet() -> None:
    report.prepare()


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in SAMPLE else pytest.mark.slow) for name in TRIED]
)
def test_the_engine_answers_as_the_library(name: str) -> None:
    row = report.examine(name)
    assert not row.problems
    assert name in VARIANTS or f" | {row.rung} | " in LINES[name], "docs/coverage.md is not current: make sweep"


def test_a_difference_would_be_seen() -> None:
    served = serve(tiny_model("llama"))
    assert served.differences() == []
    right, other = served.choices
    wrong = replace(right, tokens=[*right.tokens[:-1], right.tokens[-1] + 1])
    assert replace(served, choices=(wrong, other)).differences()[0].startswith("prompt 0: [")
    entries = list(other.logprobs or ())
    entries[5] = replace(entries[5], logprob=entries[5].logprob + 1e-2)
    off = replace(other, logprobs=entries)
    assert "log-probabilities" in replace(served, choices=(right, off)).differences()[0]


def test_every_type_is_in_the_table() -> None:
    assert tuple(LINES) == CAUSAL
    assert set(IMPOSSIBLE) <= set(CAUSAL) and set(SAMPLE) <= set(CAUSAL) - set(IMPOSSIBLE)
    assert all(LINES[name] == report.examine(name).line() for name in IMPOSSIBLE)


def test_the_sample_is_of_many_families() -> None:
    families = {re.sub(r"(_text|_moe|_next|[\d_.]+)+$", "", name) for name in SAMPLE}
    assert len(families) >= 28, sorted(families)


def test_enough_types_are_served_in_pages() -> None:
    on_pages = [" | P | " in line for line in LINES.values() if "a state" not in line and " | none | " not in line]
    with_state = [" | H | " in line or " | S | " in line for line in LINES.values() if "a state" in line]
    assert sum(on_pages) >= report.PAGED_SHARE * len(on_pages)
    assert sum(with_state) >= report.STATE_SHARE * len(with_state)
