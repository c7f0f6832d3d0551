"""The files of the page: small, of valid syntax, and right where they compute."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tuning_reports

from llmos.userland.dashboard import pages

STATIC = Path(pages.__file__).parent / "static"
HERE = Path(__file__).parent
NODE = shutil.which("node") or ""
LIMIT = 400

needs_node = pytest.mark.skipif(not NODE, reason="node is not installed, so the scripts are not run")


@pytest.mark.parametrize("path", sorted(STATIC.iterdir()), ids=lambda path: path.name)
def test_files_stay_small(path: Path) -> None:
    lines = path.read_text().splitlines()
    assert len(lines) <= LIMIT
    if path.suffix in {".js", ".css"}:
        assert not [number for number, line in enumerate(lines, 1) if len(line) > 200]


def test_every_module_is_reached_from_the_page() -> None:
    found, left = set[str](), ["app.js"]
    while left:
        name = left.pop()
        if name not in found:
            found.add(name)
            left += re.findall(r"from '\./([\w.]+)'", (STATIC / name).read_text())
    assert found | {"boot.js"} == {path.name for path in STATIC.glob("*.js")}


def test_nothing_is_ever_taken_for_html() -> None:
    """Texts of models, journals and paths are put in as text; so none of them can become a script."""
    for path in STATIC.glob("*.js"):
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", path.read_text()
        )


def test_every_picture_that_is_named_is_in_the_sprite() -> None:
    there = set(re.findall(r'<symbol id="i-(\w+)"', (STATIC / "index.html").read_text()))
    text = "\n".join(path.read_text() for path in STATIC.glob("*.js"))
    named = set(re.findall(r"icon\('(\w+)'\)|empty\('(\w+)'|icon: '(\w+)'", text))
    names = {name for found in named for name in found if name}
    assert len(names) > 10
    assert names <= there


@pytest.mark.slow
@needs_node
def test_the_syntax_of_every_module_is_right(tmp_path: Path) -> None:
    copies = []
    for path in STATIC.glob("*.js"):
        copies.append(tmp_path / f"{path.stem}.mjs")
        copies[-1].write_bytes(path.read_bytes())
    done = [subprocess.run([NODE, "--check", copy], capture_output=True, text=True) for copy in copies]
    assert not [one.stderr for one in done if one.returncode]


@needs_node
def test_what_the_scripts_compute(tmp_path: Path) -> None:
    """The tests in `scripts.test.mjs`, run by node against copies that it takes for modules."""
    (tmp_path / "package.json").write_text('{"type": "module"}')
    for path in STATIC.glob("*.js"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    test = tmp_path / "scripts.test.mjs"
    test.write_bytes((HERE / "scripts.test.mjs").read_bytes())
    done = subprocess.run([NODE, "--test", test], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^# pass [1-9]", done.stdout, re.MULTILINE)


def test_the_report_that_is_made_up_for_the_browser_has_the_form_of_a_real_one() -> None:
    sys.path.insert(0, str(HERE))
    try:
        from canned_runs import RUNS
    finally:
        sys.path.remove(str(HERE))
    canned, real = RUNS["t-17"]["facts"]["report"], tuning_reports.run()["facts"]["report"]
    for one, other in (
        (canned["figures"]["accuracy"], real["figures"]["accuracy"]), (canned["classes"], real["classes"]),
        (canned["classes"]["after"], real["classes"]["after"]),
        (canned["classes"]["curves"][0], real["classes"]["curves"][0]),
        (canned["classes"]["after"]["calibration"], real["classes"]["after"]["calibration"]),
    ):  # fmt: skip
        assert one.keys() == other.keys()
    assert len(canned["classes"]["after"]["each"][0]) == len(real["classes"]["after"]["each"][0])
    assert real.keys() <= canned.keys()


def test_the_pictures_of_the_docs_are_small_and_shown() -> None:
    folder = STATIC.parents[2] / "docs" / "dashboard"
    text = folder.with_suffix(".md").read_text()
    pictures = {path.name: path.stat().st_size for path in folder.glob("*.png")}
    assert pictures.keys() == set(re.findall(r"\(dashboard/([\w-]+\.png)\)", text))
    assert {"overview-dark.png", "overview-light.png", "phone-dark.png"} <= pictures.keys()
    assert max(pictures.values()) < 150_000
