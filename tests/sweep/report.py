"""Tries every causal type of the library and writes docs/coverage.md: `make sweep`, or `make sweep TYPES="a b"`.

A type is tried whole: its tiny model must feel planted faults, the engine must answer as the library does, on the rung
that it chose itself. The table says which rung that is and why it is no higher one.
"""

from __future__ import annotations

import contextlib
import gc
import io
import re
import sys
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
import transformers
from architectures.build import tiny_model
from architectures.facts import look
from architectures.faults import hole, shifted_positions, wider_window
from architectures.names import CAUSAL, IMPOSSIBLE, VARIANTS
from sweep.served import serve

from llmos.syscalls.errors import LlmosError

PAGE = Path(__file__).resolve().parents[2] / "docs" / "coverage.md"
PAGED_SHARE = 0.95
"""How many of the types that keep nothing but keys and values must be on rung P at least."""

STATE_SHARE = 0.75
"""How many of the types that keep a state must be on rung H or S at least."""

FAILURES = (LlmosError, RuntimeError, AssertionError, TypeError, ValueError, AttributeError, LookupError)
"""What a type that is not served can end with; none of them should."""

NONE = "none"
WHAT = {
    "P": "keys and values in pages, many requests in each step",
    "H": "pages and a state for each request, many requests in each step",
    "S": "fixed slots with a static cache",
    "G": "the library's own cache, one request after the other",
    NONE: "not served",
}
HEADER = ("| type | class | rung | why not higher | what it has |", "| --- | --- | --- | --- | --- |")


@dataclass(frozen=True)
class Row:
    """One type: `problems` is what is wrong with how it is served, `recurrent` whether it keeps a state."""

    name: str
    architecture: str
    rung: str
    reason: str
    facts: str
    recurrent: bool
    problems: Sequence[str] = ()

    def line(self) -> str:
        """Its line of the table."""
        cells = (f"`{self.name}`", self.architecture, self.rung, self.reason, self.facts)
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    @classmethod
    def read(cls, line: str) -> Row:
        """The row of a line of the table, as it was found when that was written."""
        cells = [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        name, architecture, rung, reason, facts = cells
        return cls(name.strip("`"), architecture, rung, reason, facts, "a state" in facts.split(", "))


def examine(name: str) -> Row:
    """Try one type or variant. What the library prints meanwhile is not shown."""
    with contextlib.redirect_stdout(io.StringIO()):
        return _examine(name)


def _examine(name: str) -> Row:
    if name in IMPOSSIBLE:
        return Row(name, "", NONE, IMPOSSIBLE[name], "", False)
    model = tiny_model(name)
    facts, problems = look(model.module), []
    for fault in (shifted_positions, wider_window, hole):
        answer = fault(model)
        if answer is not None and list(answer.tokens) == list(model.answer.tokens):
            problems.append(f"its tiny model does not feel {fault.__name__}")
    try:
        served = serve(model)
    except FAILURES as error:
        why = f"{type(error).__name__}: {getattr(error, 'why', error)}"
        return Row(name, type(model.module).__name__, NONE, why, facts.words(), facts.recurrent, [*problems, why])
    problems += served.differences()
    loaded = served.loaded
    if facts.recurrent and loaded.rung == "P":
        problems.append("it keeps a state, so pages are not all that it needs")
    why = "; ".join(loaded.rung_reasons)
    return Row(name, loaded.architecture, loaded.rung, why, facts.words(), facts.recurrent, problems)


def shares(rows: Sequence[Row]) -> tuple[float, float]:
    """How many of the types that keep no state are on P, and how many of those that keep one on H or S."""
    paged = [row.rung == "P" for row in rows if not row.recurrent and row.name not in IMPOSSIBLE]
    state = [row.rung in ("H", "S") for row in rows if row.recurrent]
    return sum(paged) / len(paged), sum(state) / len(state)


def page(rows: Sequence[Row]) -> str:
    """The text of docs/coverage.md."""
    counts = Counter(row.rung for row in rows)
    paged, state = shares(rows)
    summary = [f"| {rung} | {counts[rung]} | {what} |" for rung, what in WHAT.items() if counts[rung]]
    return "\n".join([
        "# Coverage", "",
        f"Every causal type that transformers {transformers.__version__} knows, and the rung that serves it.",
        "`make sweep` tries each with a tiny random model and writes this page: two requests at once, prompts in",
        "parts, greedy tokens and log-probabilities against `generate`. That a tiny model would show a fault is",
        "itself tried: a position that is one off, a window that is one token wider, a token that is not seen.", "",
        "| rung | types | what it is |", "| --- | --- | --- |", *summary, "",
        f"Of the types that keep nothing but keys and values, {paged:.0%} are on P; of those that keep a state,",
        f"{state:.0%} are on H or S; of all {len(rows)}, {counts['P'] / len(rows):.0%} are on P.", "",
        *HEADER, *(row.line() for row in rows), "",
    ])  # fmt: skip


def main(wanted: Sequence[str]) -> int:
    """Try all, or those that are named, write the page, say what is wrong; 1 when anything is."""
    names = wanted or (*CAUSAL, *VARIANTS)
    with ProcessPoolExecutor(initializer=prepare) as pool:
        rows = {row.name: row for row in pool.map(examine, names)}
    problems = [f"{row.name}: {problem}" for row in rows.values() for problem in row.problems]
    before = {row.name: row for row in map(Row.read, written())} if wanted else {}
    known = [(before | rows)[name] for name in CAUSAL]
    for name in wanted:
        print(f"{name}: {rows[name].rung} {rows[name].reason}")
    PAGE.write_text(page(known))
    paged, state = shares(known)
    if paged < PAGED_SHARE or state < STATE_SHARE:
        problems.append(f"too few: {paged:.1%} of {PAGED_SHARE:.0%} on P, {state:.1%} of {STATE_SHARE:.0%} on H or S")
    print("\n".join(problems) or f"{len(rows)} types and variants, {paged:.1%} on P")
    return bool(problems)


def written() -> list[str]:
    """The lines of types that the page has."""
    return [line for line in PAGE.read_text().splitlines() if line.startswith("| `")]


def prepare() -> None:
    """One thread for each process, no talk, and no look for garbage among what the library has imported."""
    torch.set_num_threads(1)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    gc.freeze()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
