"""Which files of a folder are a model, and which must not be touched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from llmos.drivers.contract import ModelSource, SourceFile
from llmos.drivers.filesystems.models.bring.folder import check_name, chosen, fill
from llmos.drivers.filesystems.models.bring.job import Wanted
from llmos.syscalls.errors import BadModel


def files(*names: str) -> list[SourceFile]:
    return [SourceFile(name, Path("/x") / name, 1) for name in names]


def quiet(*_said: Any) -> None:
    """Progress that nobody watches."""


def test_hidden_files_pickles_and_books_stay_behind() -> None:
    found = files("config.json", "model.safetensors", ".git", "a/.hidden/x", "w.bin", "manifest.json", "refs.json",
                  "versions/1/config.json", "onnx/model.onnx")  # fmt: skip
    assert [file.name for file in chosen(found)] == ["config.json", "model.safetensors", "onnx/model.onnx"]


def test_pickles_alone_are_no_model() -> None:
    with pytest.raises(BadModel, match="only weights are a pickle") as raised:
        chosen(files("config.json", "pytorch_model.bin"))
    assert raised.value.file == "pytorch_model.bin"


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../../x", "", "a//b", "./a", "a\0b", "a\\b", "..", "a/"])
def test_names_that_lead_out_are_refused(name: str) -> None:
    with pytest.raises(BadModel, match="not a name inside"):
        check_name(name)
    with pytest.raises(BadModel):
        chosen([SourceFile(name, Path("/x"), 1)])


def test_a_file_that_is_being_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{}")
    source = ModelSource("/m", "1", [SourceFile("a.json", tmp_path / "a.json", 7)])
    wanted = Wanted("/new", source, "", {}, tmp_path, quiet)
    with pytest.raises(BadModel, match="has 2 bytes now and had 7"):
        fill(wanted, tmp_path / "into")
