"""Tests mirror sources: each source file has a test file of its own."""

from __future__ import annotations

import pytest
from sources import FOLDERS, ROOT, modules


@pytest.mark.parametrize("folder", FOLDERS)
def test_each_source_file_has_its_test_file(folder: str) -> None:
    missing = []
    for path in modules(folder):
        if path.name == "__init__.py":
            continue
        name = path.relative_to(ROOT).with_name(f"test_{path.stem.strip('_')}.py")
        mirrored = ROOT / "tests" / name
        if not mirrored.exists() and not (mirrored.parent / "interpreted" / mirrored.name).exists():
            missing.append(str(name))
    assert not missing, f"write tests/{', tests/'.join(missing)}"
