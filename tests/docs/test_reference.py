"""The reference is complete and current: every call, type and error has its place, generated parts are up to date."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from llmos.syscalls import calls, errors, types
from llmos.syscalls.driver import HOST_CALLS
from llmos.syscalls.spec import SYSCALLS, CallSpec
from llmos.syscalls.types import Kind, Right
from sources import ROOT

assert calls.__all__
DOCS = ROOT / "docs"
PAGES = DOCS / "syscalls"
MARKDOWN = sorted(
    path for path in [*ROOT.glob("*.md"), *DOCS.rglob("*.md")] if not {".venv", "build", "bundled"} & set(path.parts)
)


def load_generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


GENERATE = load_generator()


def section(page: str, title: str) -> str:
    """The text below a heading of second level."""
    found = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", page, re.S | re.M)
    return found[1].strip() if found else ""


def test_the_generated_parts_are_current() -> None:
    done = subprocess.run([sys.executable, DOCS / "generate.py", "--check"], capture_output=True, text=True)
    assert done.returncode == 0, f"run `make docs`:\n{done.stdout}{done.stderr}"


@pytest.mark.parametrize("spec", SYSCALLS.values(), ids=lambda spec: spec.name)
def test_every_call_has_a_whole_page(spec: CallSpec) -> None:
    page = (PAGES / f"{spec.name}.md").read_text()
    assert page.split("\n")[1] == f"# {spec.name}"
    for title in GENERATE.SECTIONS:
        assert section(page, title), f"docs/syscalls/{spec.name}.md: write its section {title}"
    causes = re.findall(r"((?:`[A-Z]\w+`(?:, )?)+):", section(page, "Errors"))  # `Busy`: why
    named = {name for names in causes for name in re.findall(r"`(\w+)`", names)}
    listed = {cls.__name__ for cls in spec.errors}
    assert listed <= named, f"{spec.name}.md: say when it answers {listed - named}"
    assert named <= listed | {cls.__name__ for cls in errors.COMMON}, f"{spec.name} can not answer {named - listed}"
    assert "```python\n# runs:" in section(page, "Example")


def test_there_is_no_page_without_a_call() -> None:
    others = {"README", "rights", "errors", "types", "wire", "driver-interface"}
    assert {path.stem for path in PAGES.glob("*.md")} == set(SYSCALLS) | others


def test_every_error_says_what_to_do() -> None:
    page = (PAGES / "errors.md").read_text()
    advised = re.findall(r"^### (\w+)\n\n\S", section(page, "What to do"), re.M)
    assert advised == [cls.__name__ for _, cls in sorted(errors.by_code().items())]


def test_every_right_and_kind_is_in_the_table_of_rights() -> None:
    page = (PAGES / "rights.md").read_text()
    assert {name.lower() for name in re.findall(r"^\| `([A-Z]+)` \|", page, re.M)} == {right.value for right in Right}
    rows = set(re.findall(r"^\| (\w+) \|", section(page, "By kind"), re.M)) - {"kind"}
    assert rows == {kind.value for kind in Kind}


def test_every_type_and_host_call_is_listed() -> None:
    page = (PAGES / "types.md").read_text()
    headings = set(re.findall(r"^### (\w+)$", page, re.M))
    structs = {name for name in types.__all__ if isinstance(getattr(types, name), type)}
    assert structs - {"bytes"} <= headings | {"Handle"}
    interface = (PAGES / "driver-interface.md").read_text()
    assert all(f"| `{name}(" in interface for name in HOST_CALLS)


def test_every_action_of_control_object_is_documented() -> None:
    from llmos.kernel.actions import ACTIONS

    page = section((PAGES / "control_object.md").read_text(), "Description")
    table = re.findall(r"^\| (\w+) \| `(\w+)` \| (.*?) \| (\w+) \|", page, re.M)
    documented = {(kind, action): (options, right) for kind, action, options, right in table}
    assert set(documented) == {(kind.value, name) for kind, actions in ACTIONS.items() for name in actions}
    for kind, actions in ACTIONS.items():
        for name, action in actions.items():
            options, right = documented[kind.value, name]
            assert right == action.right.name, f"{kind.value} {name}"
            if kind is not Kind.SESSION:  # its options are the fields of Limits
                assert re.findall(r"(\w+):", options) == list(action.options or {}), f"{kind.value} {name}"


def anchors(path: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", path.read_text(), re.M)
    return {re.sub(r"[^\w -]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", MARKDOWN, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    text = re.sub(r"^```.*?^```|`[^`]*`", "", path.read_text(), flags=re.S | re.M)
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+://|mailto:", target):
            continue
        name, _, anchor = target.partition("#")
        file = path.parent / name if name else path
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(target)
    assert not broken


def test_every_page_can_be_found() -> None:
    """Some page links to it, so a reader who begins at README.md gets there."""
    linked = {
        (path.parent / target.partition("#")[0]).resolve()
        for path in MARKDOWN
        for target in re.findall(r"\]\(([^)\s:]+)\)", path.read_text())
    }
    pages = {path for path in MARKDOWN if path.is_relative_to(DOCS)}
    assert {str(path.relative_to(ROOT)) for path in pages - linked} == set(), "link them from docs/README.md"


def test_a_missing_marker_is_told() -> None:
    with pytest.raises(ValueError, match="markers"):
        GENERATE.replace("text", "head", "part")


def test_a_generated_part_is_replaced_and_the_rest_kept() -> None:
    begin, end = GENERATE.BEGIN.format(name="a"), GENERATE.END.format(name="a")
    assert GENERATE.replace(f"x\n{begin}\nold\n{end}\ny", "a", "new") == f"x\n{begin}\nnew\n{end}\ny"
