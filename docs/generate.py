"""Writes the generated parts of the reference: `make docs`. With --check, says what is out of date and changes nothing.

A generated part stands between two marker comments; everything else in a page is written by hand and kept.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import itertools
import sys
import textwrap
from collections.abc import Callable, Iterable
from enum import StrEnum
from pathlib import Path
from typing import Any, get_type_hints

import msgspec

from llmos.syscalls import answers, calls, driver, errors, events, types, wire
from llmos.syscalls.manual import Manual, error_entry, manual, spell, spell_value
from llmos.syscalls.spec import COMMON_ARGUMENTS, SYSCALLS, CallSpec

DOCS = Path(__file__).resolve().parent
PAGES = DOCS / "syscalls"
BEGIN = "<!-- generated: {name}; make docs -->"
END = "<!-- end: {name} -->"

GROUPS = {
    "Session": calls.session, "Objects": calls.objects, "Models": calls.model, "Inference": calls.inference,
    "Tuning": calls.tuning, "Device memory": calls.device, "Files": calls.files, "Tasks": calls.tasks,
    "Monitoring": calls.monitor,
}  # fmt: skip
TYPE_GROUPS = {
    "Handles and rights": types.authority, "Common": types.common, "Inputs": types.inputs,
    "Sampling and embedding": types.sampling, "Models": types.models, "Results of inference": types.results,
    "Sessions, files, tasks": types.objects, "Advice and alerts": types.advice, "Wire": wire,
}  # fmt: skip


def replace(text: str, name: str, part: str) -> str:
    """The text with the generated part of this name replaced.

    Raises:
        ValueError: the markers are missing.
    """
    begin, end = BEGIN.format(name=name), END.format(name=name)
    before, found, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise ValueError(f"the markers {begin} and {end} are missing")
    return f"{before}{begin}\n{part.strip()}\n{end}{after}"


def table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table."""
    cells = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    head = list(header)
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *cells])


def calls_of(module: Any, in_table: dict[str, CallSpec]) -> list[CallSpec]:
    """The calls that a module declares, in its order."""
    return [spec for spec in in_table.values() if spec.cls.__module__ == module.__name__]


def page_head(spec: CallSpec) -> str:
    """NAME, SYNOPSIS, ARGUMENTS, RESULT of one call."""
    page = manual(spec)
    parts = [f"# {page.name}", page.doc, "## Synopsis", f"```text\n{page.synopsis}\n```"]
    parts += ["## Arguments", _arguments(page)] if page.arguments else []
    parts += ["## Result", _result(spec)]
    return "\n\n".join(parts)


def _arguments(page: Manual) -> str:
    rows = [
        (f"`{a.name}`", f"`{a.type}`", a.needs or "-", f"`{a.default}`" if a.default else "required", a.doc)
        for a in page.arguments
    ]
    lines = table(("argument", "type", "handle needs", "default", "meaning"), rows)
    common = ", ".join(f"`{name}`" for name in COMMON_ARGUMENTS)
    return f"{lines}\n\nAnd, as every call: {common} ([README](README.md))."


def _result(spec: CallSpec) -> str:
    if spec.streams:
        return f"A stream of {_link(spec.item)}, then one {_link(spec.result)}."
    return _link(spec.result)


def _link(kind: Any) -> str:
    """A type with a link to its description, where it has one."""
    spelled = spell(kind)
    inner = spelled.removesuffix("]").rpartition("[")[2].rpartition(", ")[2]
    return f"[`{spelled}`](types.md#{inner.lower()})"


def index() -> str:
    """All calls by group."""
    parts = []
    for title, module in GROUPS.items():
        rows = [(f"[`{s.name}`]({s.name}.md)", f"`{manual(s).result}`", s.doc) for s in calls_of(module, SYSCALLS)]
        parts += [f"### {title}", table(("call", "result", "what it does"), rows)]
    return "\n\n".join(parts)


def error_table() -> str:
    """All errors with code, fields and the calls that list them."""
    rows = []
    for code, cls in sorted(errors.by_code().items()):
        entry = error_entry(cls)
        users = [f"[`{name}`]({name}.md)" for name, spec in sorted(SYSCALLS.items()) if cls in spec.errors]
        where = "any call" if cls in errors.COMMON else ", ".join(users) or "-"
        fields = ", ".join(f"`{name}`" for name in entry.fields) or "-"
        rows.append((str(code), f"[`{entry.name}`](#{entry.name.lower()})", fields, entry.doc, where))
    return table(("code", "error", "fields", "meaning", "from"), rows)


def type_list() -> str:
    """Every type that travels, with its fields."""
    parts = []
    for title, module in TYPE_GROUPS.items():
        parts.append(f"## {title}")
        for cls in vars(module).values():
            if isinstance(cls, type) and cls.__module__ == module.__name__:
                parts += _type(cls)
    return "\n\n".join(parts)


def _type(cls: type[Any]) -> list[str]:
    doc = " ".join((cls.__doc__ or "").split())
    if issubclass(cls, StrEnum):
        return [f"### {cls.__name__}", doc, ", ".join(f"`{member.value}`" for member in cls)]
    if not issubclass(cls, msgspec.Struct):
        return []
    config = cls.__struct_config__
    tag = f" Tagged `{config.tag_field}: {config.tag}`." if config.tag else ""
    return [f"### {cls.__name__}", doc + tag, *([fields_of(cls)] if cls.__struct_fields__ else [])]


def fields_of(cls: type[msgspec.Struct]) -> str:
    """The fields of a Struct as a table."""
    hints = get_type_hints(cls, include_extras=True)
    written_below = {name: note for base in reversed(cls.__mro__[:-1]) for name, note in field_notes(base).items()}
    rows = []
    for field in msgspec.structs.fields(cls):
        notes = [note for note in getattr(hints[field.name], "__metadata__", ()) if type(note) is str]
        notes += [written_below[field.name]] if field.name in written_below else []
        rows.append((f"`{field.name}`", f"`{spell(hints[field.name])}`", _default(field), "; ".join(notes) or "-"))
    return table(("field", "type", "default", "meaning"), rows)


def field_notes(cls: type[Any]) -> dict[str, str]:
    """The texts that stand below fields in the source of a class."""
    if not cls.__module__.startswith("llmos."):
        return {}
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    assert isinstance(definition, ast.ClassDef)
    return {
        field.target.id: " ".join(str(note.value.value).split())
        for field, note in itertools.pairwise(definition.body)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        and isinstance(note, ast.Expr) and isinstance(note.value, ast.Constant)
    }  # fmt: skip


def _default(field: msgspec.structs.FieldInfo) -> str:
    if field.required:
        return "required"
    value = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
    return f"`{spell_value(value)}`"


def host_calls() -> str:
    """What a kernel asks of a host."""
    rows = [
        (f"`{manual(s).synopsis}`", ", ".join(e.name for e in manual(s).errors) or "-", " ".join(s.doc.split()) or "-")
        for s in driver.HOST_CALLS.values()
    ]
    return table(("call", "errors beside the common ones", "meaning"), rows)


def host_types() -> str:
    """The types of the kernel-host interface."""
    table_calls = {spec.cls for spec in driver.HOST_CALLS.values()}
    parts = []
    for module in (events, driver, answers):
        for cls in vars(module).values():
            if isinstance(cls, type) and cls.__module__ == module.__name__ and cls not in table_calls:
                parts += _type(cls)
    return "\n\n".join(parts)


def http_routes() -> str:
    """All routes of the gateway by the API they belong to."""
    from llmos.userland.gateway.core.app import all_routes
    from llmos.userland.gateway.native.openapi import document

    tags: dict[str, list[tuple[str, str, str, str]]] = {}
    for path, methods in document(all_routes())["paths"].items():
        for method, operation in methods.items():
            scope = operation.get("x-llmos-scope")
            row = (method.upper(), f"`{path}`", f"`{scope}`" if scope else "-", operation["summary"])
            tags.setdefault(operation["tags"][0], []).append(row)
    header = ("method", "path", "scope", "what it does")
    return "\n\n".join(f"### {tag}\n\n{table(header, rows)}" for tag, rows in tags.items())


def http_left_out() -> str:
    """The calls that are not offered over HTTP, with the reasons."""
    from llmos.userland.gateway.native.scopes import NOT_OFFERED

    rows = [(f"[`{name}`](syscalls/{name}.md)", f"{why[0].upper()}{why[1:]}.") for name, why in NOT_OFFERED.items()]
    return table(("call", "why not"), rows)


def ops() -> str:
    """The catalog of ops: an overview, then the arguments of each."""
    from llmos.drivers.ops import catalog

    rows = [(f"[`{op.name}`](#{op.name})", op.does, op.answer) for op in catalog.CATALOG]
    parts = [" ".join((catalog.__doc__ or "").partition("Shapes: ")[2].split()), table(("op", "does", "answer"), rows)]
    for op in catalog.CATALOG:
        taken = [(f"`{a.name}`", a.shape or "-", a.dtype or "-", a.what or "-") for a in op.arguments]
        asked = ", ".join(["`device`", "`dtype`", *(f"`{key}` (as {value})" for key, value in op.spec.items())])
        parts += [f"### {op.name}", f"{op.does[0].upper()}{op.does[1:]}. Answer: {op.answer}. Asked with {asked}."]
        parts += [table(("argument", "shape", "dtype", "meaning"), taken)] if taken else []
    return "\n\n".join(parts)


PARTS: dict[str, dict[str, Callable[[], str]]] = {
    "README.md": {"calls": index},
    "errors.md": {"errors": error_table},
    "types.md": {"types": type_list},
    "driver-interface.md": {"calls": host_calls, "types": host_types},
    "../ops.md": {"ops": ops},
    "../http-api.md": {"routes": http_routes, "left out": http_left_out},
}
SECTIONS = ("Description", "Example", "Errors", "See also")


def written() -> dict[Path, str]:
    """Every page with its generated parts as they should be."""
    pages = {}
    for name, parts in PARTS.items():
        page = (PAGES / name).resolve()
        text = page.read_text()
        for part, make in parts.items():
            text = replace(text, part, make())
        pages[page] = text
    for name, spec in SYSCALLS.items():
        path = PAGES / f"{name}.md"
        pages[path] = replace(path.read_text() if path.exists() else _blank(), "head", page_head(spec))
    return pages


def _blank() -> str:
    """A page of a new call; the sections are to be filled by hand."""
    sections = "".join(f"\n## {title}\n" for title in SECTIONS)
    return f"{BEGIN.format(name='head')}\n{END.format(name='head')}\n{sections}"


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a page is out of date")
    check = parser.parse_args(arguments).check
    stale = [(path, text) for path, text in written().items() if not path.exists() or path.read_text() != text]
    for path, text in stale:
        sys.stdout.write(f"{path.relative_to(DOCS.parent)} {'is out of date' if check else 'written'}\n")
        if not check:
            path.write_text(text)
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
