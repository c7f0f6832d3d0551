"""The source files of the project, parsed: what the tests of layering, size, mirror and hygiene look at."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("syscalls", "kernel", "drivers", "userland")
_NOT_OURS = {".venv", ".git", "build", "dist", "__pycache__"}


@dataclass(frozen=True)
class Import:
    """One import statement. `top` is what is imported from, `llmos` resolved; `later` when it stands in a function."""

    module: str
    names: tuple[str, ...]
    line: int
    later: bool


@functools.cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def modules(folder: str) -> list[Path]:
    """All Python files below one of the four folders."""
    return sorted(path for path in (ROOT / folder).rglob("*.py") if not _NOT_OURS & set(path.parts))


def name_of(path: Path) -> str:
    """The import name of a source file: kernel/handlers/model.py is `llmos.kernel.handlers.model`."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(("llmos", *(parts[:-1] if parts[-1] == "__init__" else parts)))


def imports(path: Path) -> Iterator[Import]:
    """What a file imports at run time; imports for the type checker alone do not count."""
    package = name_of(path).split(".")
    if path.name != "__init__.py":
        package = package[:-1]
    yield from _imports(tree(path).body, package, later=False)


def _imports(body: list[ast.stmt], package: list[str], later: bool) -> Iterator[Import]:
    for node in body:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, (), node.lineno, later)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield Import(module, tuple(alias.name for alias in node.names), node.lineno, later)
        elif not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)):
            inside = later or isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
            for field in ("body", "orelse", "finalbody", "handlers", "cases"):
                for child in getattr(node, field, []):
                    yield from _imports([child] if isinstance(child, ast.stmt) else child.body, package, inside)


def texts() -> list[Path]:
    """All text files of the repository: what people write, what benches and trainings keep."""
    kinds = {".py", ".md", ".toml", ".txt", ".yml", ".cfg", ".json", ".cpp", ".h", ".svg", ""}
    top = [path for path in ROOT.iterdir() if path.name == ".ci" or path.name[0] != "."]
    top = [path for path in top if path.name not in _NOT_OURS]
    found = [path for entry in top for path in (entry.rglob("*") if entry.is_dir() else [entry])]
    return sorted(p for p in found if p.suffix in kinds and p.is_file() and not _NOT_OURS & set(p.parts))
