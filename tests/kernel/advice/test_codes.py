"""The table of reason codes: whatever the kernel and the hosts say is in it, and nothing else is."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from sources import ROOT, modules, tree

from llmos.kernel.advice.codes import CODES, change

SAYS = {"Reason", "reason", "_reason", "because"}
"""What makes a reason: the type, and the helpers that take the code first."""


def _codes(path: Path) -> Iterator[tuple[str, str]]:
    """Each code that a file names where it makes a reason, with the place. A code may also stand in a table of codes:
    a constant whose name ends in CODES."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            given = [k.value for k in node.keywords if k.arg == "code"] if name == "Reason" else node.args[:1]
            for value in given if name in SAYS else []:
                yield from ((text, f"{path.relative_to(ROOT)}:{node.lineno}") for text in _texts(value))


def _texts(value: ast.expr) -> Iterator[str]:
    """The text of a constant; of `f"task.{state}"` the part that is known, with a star."""
    if isinstance(value, ast.Constant) and isinstance(value.value, str):
        yield value.value
    elif isinstance(value, ast.IfExp):
        yield from _texts(value.body)
        yield from _texts(value.orelse)
    elif isinstance(value, ast.JoinedStr):
        yield "".join(p.value if isinstance(p, ast.Constant) else "*" for p in value.values)  # type: ignore[misc]


USED = [(code, at) for folder in ("kernel", "drivers") for path in modules(folder) for code, at in _codes(path)]


def _known(code: str) -> bool:
    if "*" in code:
        return any(known.startswith(code.split("*")[0]) for known in CODES)
    return code in CODES


def test_every_code_in_the_sources_is_in_the_table() -> None:
    missing = [f"{code} ({at})" for code, at in USED if not _known(code)]
    assert len(USED) > 20 and not missing, "add these to kernel/advice/codes.py, with what would change them"


def test_no_code_is_left_over() -> None:
    literal = {
        node.value
        for folder in ("kernel", "drivers")
        for path in modules(folder)
        if path.name != "codes.py"
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    built = tuple(code.split("*")[0] for code, _ in USED if "*" in code)
    unused = [code for code in CODES if code not in literal and not code.startswith(built)]
    assert not unused, "nothing says these any more"


def test_each_says_what_it_means_and_what_would_change_it() -> None:
    for code, known in CODES.items():
        assert known.means.endswith("."), f"{code}: a sentence"
        assert not known.change.endswith("."), f"{code}: an instruction, to be joined to others"
        assert change(code) == known.change
    assert change("nobody.says") == ""


# ---- the numbers of decisions

NUMBERS = "tests/kernel/advice/test_numbers.py"
COMPARED = {
    "advice.given": "tests/kernel/test_advising.py",
    "alert.raised": "tests/kernel/test_alarms.py",
    "alert.cleared": "tests/kernel/test_alarms.py",
    "device.fallback": "tests/kernel/test_placing.py",
    "overdue": "tests/kernel/test_supervisor_listening.py",
    "plan.evicts": "tests/kernel/memory/test_planning.py",
    "plan.fits": "tests/kernel/memory/test_planning.py",
    "plan.short": "tests/kernel/memory/test_planning.py",
    "quota.over": "tests/kernel/test_quota.py",
    "request.cancelled": "tests/kernel/advice/test_outcome.py",
    "request.failed": "tests/kernel/advice/test_outcome.py",
    "request.hopeless": "tests/kernel/test_scheduler.py",
    "request.preempted": "tests/kernel/test_yielding.py",
}
"""The test that compares the numbers of a code with their source, where that is not `NUMBERS`."""


def _numbered(path: Path) -> Iterator[str]:
    """The codes that a file gives numbers to: as `numbers`, or as further keywords of a helper."""
    for node in ast.walk(tree(path)):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        keywords = {keyword.arg: keyword.value for keyword in node.keywords}
        if name == "Reason" and "numbers" in keywords:
            yield from _texts(keywords["code"])
        elif name in SAYS - {"Reason"} and node.args and keywords.keys() - {"rule"}:
            yield from _texts(node.args[0])


def test_the_numbers_of_each_are_compared_with_their_source() -> None:
    codes = {code for folder in ("kernel", "drivers") for path in modules(folder) for code in _numbered(path)}
    missing = []
    for code in codes | {"alert.raised", "alert.cleared", "memory.excess"}:
        test = (ROOT / COMPARED.get(code, NUMBERS)).read_text()
        if f'"{code}"' not in test or "numbers" not in test:
            missing.append(code)
    assert len(codes) > 20 and not missing, f"compare their numbers with their source, or name the test: {missing}"
    assert not COMPARED.keys() - codes - {"alert.raised", "alert.cleared"}, "these have no numbers any more"
