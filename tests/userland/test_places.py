"""Environment over default; what names the host's own files."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from llmos.userland.places import home_folder, host_path, kernel_address, runtime_folder


def test_the_runtime_folder_is_named_by_the_environment_or_belongs_to_the_user() -> None:
    assert runtime_folder({"LLMOS_RUNTIME_DIR": "/a", "XDG_RUNTIME_DIR": "/b"}) == Path("/a")
    assert runtime_folder({"XDG_RUNTIME_DIR": "/b"}) == Path("/b/llmos")
    assert runtime_folder({}) == Path(tempfile.gettempdir()) / f"llmos-{os.getuid()}"
    assert kernel_address(Path("/a")) == "ipc:///a/kernel.sock"


def test_the_home_folder() -> None:
    assert home_folder({"LLMOS_HOME": "/h"}) == Path("/h")
    assert home_folder({}) == Path.home() / ".llmos"


@pytest.mark.parametrize("text", ["/models/tiny", "tiny", "models/tiny", ".hidden", "...", "~other"])
def test_paths_of_the_namespace(text: str) -> None:
    assert host_path(text) is None


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("./a", Path.cwd() / "a"), ("../a", Path.cwd().parent / "a"), ("~/a", Path.home() / "a"), (".", Path.cwd()),
        ("..", Path.cwd().parent), ("~", Path.home()), ("file:/a/b", Path("/a/b")), ("file:a", Path.cwd() / "a"),
    ],
)
def test_paths_of_the_host(text: str, path: Path) -> None:
    assert host_path(text) == path
