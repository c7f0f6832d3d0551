"""Rules that no tool checks for us. Each is first shown to catch a planted offence."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator

import pytest
from sources import FOLDERS, ROOT, modules, texts, tree

BOUNDARIES = {"drivers/host.py", "drivers/plugins.py"}
"""The two boundaries that may catch everything: a host's requests, and the loading of plug-ins."""

FORBIDDEN = {"torchvision", "torchaudio", "gliner", "httpx", "evaluate", "sqlite_vec", "kuzu", "torch.ao"}
"""Broken beside a CPU build of torch, unmaintained, or carriers of other people's weights."""

MENTIONED = re.compile(rf"\b({'|'.join(sorted(name.rpartition('.')[2] for name in FORBIDDEN))})\b")
"""In the text of every file that imports one of these: others need not be parsed."""

UNFINISHED = re.compile(r"\b(TO" r"DO|FIX" r"ME|XX" r"X|HA" r"CK)\b")
MACHINE_PATHS = re.compile(r"(?<![\w.])/(work|root)/\w|/opt/(py" r"pi|wheels)|/tmp/(ba" r"sh|team)")


def swallows_everything(handler: ast.ExceptHandler) -> bool:
    """A broad except that does not pass the exception on."""
    kinds = ast.unparse(handler.type) if handler.type else "BaseException"
    passes_on = any(isinstance(node, ast.Raise) and node.exc is None for node in ast.walk(handler))
    return bool(re.search(r"\b(Base)?Exception\b(?!Group)", kinds)) and not passes_on


def prints(node: ast.Call) -> bool:
    """A print to standard output; a message on stderr reaches the journal or the terminal."""
    named = isinstance(node.func, ast.Name) and node.func.id == "print"
    return named and not any(keyword.arg == "file" for keyword in node.keywords)


def forbidden_imports(node: ast.AST) -> Iterator[str]:
    names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
    if isinstance(node, ast.ImportFrom) and node.module and not node.level:
        names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    yield from {bad for name in names for bad in FORBIDDEN if name == bad or name.startswith(f"{bad}.")}


PLANTED = '''
try:
    print("lost", 1)
    import torchvision.ops, httpx2
    from torch import ao
except (KeyError, Exception) as error:
    print(error, file=log)
try: ...
except BaseException:
    raise
except: ...
except ExceptionGroup: ...
'''


def test_the_rules_catch_planted_offences() -> None:
    nodes = list(ast.walk(ast.parse(PLANTED)))
    broad = [node.lineno for node in nodes if isinstance(node, ast.ExceptHandler) and swallows_everything(node)]
    assert broad == [6, 11]
    assert [node.lineno for node in nodes if isinstance(node, ast.Call) and prints(node)] == [3]
    assert sorted(bad for node in nodes for bad in forbidden_imports(node)) == ["torch.ao", "torchvision"]
    assert all(MENTIONED.search(f"from torch import {name.rpartition('.')[2]}\n") for name in FORBIDDEN)
    assert UNFINISHED.search("# TO" "DO: later") and not UNFINISHED.search("a todo list")
    assert MACHINE_PATHS.search("see /work" "/main") and not MACHINE_PATHS.search("/models/work/x")


@pytest.mark.parametrize("folder", FOLDERS)
def test_only_the_two_boundaries_catch_everything(folder: str) -> None:
    found = {
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in modules(folder)
        for node in ast.walk(tree(path))
        if isinstance(node, ast.ExceptHandler) and swallows_everything(node)
    }
    assert {place.partition(":")[0] for place in found} <= BOUNDARIES, sorted(found)
    per_file = [place.partition(":")[0] for place in found]
    assert all(per_file.count(name) == 1 for name in per_file), f"one boundary per file: {sorted(found)}"


@pytest.mark.parametrize("folder", ["syscalls", "kernel", "drivers"])
def test_only_entry_points_print(folder: str) -> None:
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in modules(folder)
        if path.name != "__main__.py"
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call) and prints(node)
    ]
    assert not found


def test_no_forbidden_import() -> None:
    found = {
        f"{path.relative_to(ROOT)}: {bad}"
        for folder in (*FOLDERS, "tests", "docs")
        for path in modules(folder)
        if MENTIONED.search(path.read_text())
        for node in ast.walk(tree(path))
        for bad in forbidden_imports(node)
        if not path.with_name(f"{bad}.py").exists()  # a script's own neighbour
    }
    assert not found


def test_no_forbidden_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    listed = [
        *project["project"]["dependencies"],
        *(name for extra in project["project"]["optional-dependencies"].values() for name in extra),
        *(name for group in project["dependency-groups"].values() for name in group),
        *(ROOT / "constraints.txt").read_text().splitlines(),
    ]
    names = {re.split(r"[^\w.-]", line.strip())[0].lower().replace("-", "_") for line in listed}
    assert not names & (FORBIDDEN | {"pynvml"}), "pynvml: the module comes from nvidia-ml-py"


@pytest.mark.parametrize(("rule", "what"), [(UNFINISHED, "unfinished"), (MACHINE_PATHS, "a path of one machine")])
def test_no_such_text_anywhere(rule: re.Pattern[str], what: str) -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}"
        for path in texts()
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if rule.search(line)
    ]
    assert not found, what
