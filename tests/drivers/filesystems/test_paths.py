from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llmos.drivers.filesystems.paths import (
    PAGE, file_errors, join, names_in, open_file, open_folder, page, replace_file, split, sync_folder,
)  # fmt: skip
from llmos.syscalls.errors import (
    BadArgument, Busy, Denied, Exists, LlmosError, NoResources, NoSpace, NotDirectory, NotFound, NotSupported, ReadOnly,
)  # fmt: skip

HOSTILE = st.one_of(
    st.text(),
    st.lists(st.sampled_from(["..", ".", "", "a", "ü b", "-x", ".h", "\0", "a\0b", "x" * 300, "\udc80"])).map("/".join),
).map(lambda text: "/" + text)


@given(HOSTILE)
def test_split_gives_names_or_refuses(path: str) -> None:
    try:
        parts = split(path)
    except BadArgument as error:
        assert error.name == "path"
        return
    for name in parts:
        assert name not in ("", ".", "..") and "/" not in name and "\0" not in name and len(name.encode()) <= 255
    assert split(join(parts)) == parts


@given(HOSTILE)
def test_a_path_never_leaves_its_tree(path: str) -> None:
    try:
        parts = split(path)
    except BadArgument:
        return
    root = Path("/srv/tree")
    assert os.path.normpath(root.joinpath(*parts)) == str(root.joinpath(*parts))


@pytest.mark.parametrize(
    "path", ["", "a", "/..", "/a/../b", "/./a", "/a\0", "/" + "x" * 256, "/" + "é" * 128, "/" + "a/" * 2100, "/\udc80"]
)
def test_split_refuses(path: str) -> None:
    with pytest.raises(BadArgument):
        split(path)


@pytest.mark.parametrize("name", ["a b", "ü", "-rf", ".hidden", "...", "a@b", "日本", "x" * 255, "~", "*"])
def test_weird_names_are_names(name: str) -> None:
    assert split(f"/{name}/{name}") == (name, name)


def test_page_is_ordered_and_bounded() -> None:
    items = [f"/{number:05}" for number in range(PAGE + 500)]
    first = page(reversed(items), str, "")
    assert first == items[:PAGE]
    assert page(items, str, first[-1]) == items[PAGE:]


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (errno.ENOENT, NotFound), (errno.ENOTDIR, NotDirectory), (errno.ELOOP, NotFound), (errno.EISDIR, BadArgument),
        (errno.EEXIST, Exists), (errno.ENOTEMPTY, Busy), (errno.ENOSPC, NoSpace), (errno.EDQUOT, NoSpace),
        (errno.EFBIG, NoSpace), (errno.EROFS, ReadOnly), (errno.EACCES, Denied), (errno.ENAMETOOLONG, BadArgument),
        (errno.EXDEV, NotSupported), (errno.EMFILE, NoResources),
    ],
)  # fmt: skip
def test_refusals_become_typed_errors(code: int, kind: type[LlmosError]) -> None:
    with pytest.raises(kind, match="/a/b"), file_errors("/a/b"):
        raise OSError(code, os.strerror(code))


def test_refused_writes_are_read_only_and_surprises_pass() -> None:
    with pytest.raises(ReadOnly), file_errors("/a", writing=True):
        raise PermissionError(errno.EACCES, "no")
    with pytest.raises(OSError, match="broken"), file_errors("/a"):
        raise OSError(errno.EIO, "broken")


def test_links_are_not_followed_at_any_depth(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "real").mkdir(parents=True)
    (root / "real" / "file").write_text("inside")
    (tmp_path / "secret").write_text("outside")
    (root / "out").symlink_to(tmp_path)
    (root / "link").symlink_to(tmp_path / "secret")
    os.close(open_file(root, ("real", "file")))
    for parts in [("out", "secret"), ("link",)]:
        with pytest.raises(OSError) as caught:
            open_file(root, parts)
        assert caught.value.errno in (errno.ELOOP, errno.ENOTDIR)


def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    with pytest.raises(PermissionError):
        open_file(tmp_path, ("pipe",))  # and does not wait for a writer
    with pytest.raises(IsADirectoryError):
        open_file(tmp_path, ("folder",))


def test_folders_are_made_on_the_way(tmp_path: Path) -> None:
    for _ in range(2):
        with open_folder(tmp_path, ("a", "b"), create=True) as at:
            assert names_in(at) == []
    with pytest.raises(FileNotFoundError), open_folder(tmp_path, ("c",)):
        pass
    with open_folder(tmp_path, ()) as at:
        assert names_in(at) == ["a"]


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    replace_file(path, b"one")
    replace_file(path, b"two", durable=False)
    assert path.read_bytes() == b"two"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]
    sync_folder(tmp_path)


def test_a_file_that_cannot_be_replaced_stays(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    (path / "inner").mkdir(parents=True)
    with pytest.raises(IsADirectoryError):
        replace_file(path, b"x")
    assert [entry.name for entry in tmp_path.iterdir()] == ["folder"]
