"""Every kind of source that the documentation names has somebody who brings it."""

from __future__ import annotations

from pathlib import Path

import pytest
from llmos.drivers.contract import ModelSource, SourceFile
from llmos.drivers.filesystems.models.bring import folder, gguf_file, hub, remote
from llmos.drivers.filesystems.models.bring.kinds import FILLERS


@pytest.mark.parametrize(
    ("source", "filler"),
    [
        ("hf:acme/fox", hub.fill), ("http://h:1/models/x", remote.fill), ("llmos+https://h/models/x", remote.fill),
        (ModelSource("/x", "1", [SourceFile("x.gguf", Path("/x.gguf"), 1)]), gguf_file.fill),
        (ModelSource("/x", "1", [SourceFile("config.json", Path("/c"), 1)]), folder.fill),
    ],
)  # fmt: skip
def test_each_kind_is_brought_by_its_own(source: ModelSource | str, filler: object) -> None:
    assert FILLERS.choose(source) is filler
