"""Ranges, resumption and hashes: what is there is not fetched again, what is wrong does not stay."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_hub import COMMIT, FakeHub, hub
from llmos.drivers.filesystems.models.bring import fetch as fetching
from llmos.drivers.filesystems.models.bring.fetch import Remote, fetch, move
from llmos.syscalls.errors import BadModel, NoSpace, NotFound, Unavailable

BIG = os.urandom(1000) * 40
SMALL = b'{"a": 1}'


def quiet(*_said: Any) -> None:
    """Progress that nobody watches."""


@pytest.fixture(autouse=True)
def small_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "RANGE", 8192)
    monkeypatch.setattr(fetching, "PIECE", 1024)
    monkeypatch.setattr(fetching, "PAUSE_S", 0.001)


@pytest.fixture
def served() -> Iterator[FakeHub]:
    with hub({"model.safetensors": BIG, "config.json": SMALL, "empty.txt": b""}) as fake:
        yield fake


def files(fake: FakeHub) -> list[Remote]:
    base = f"{fake.url}/{fake.repository}/resolve/{COMMIT}"
    return [
        Remote(about["rfilename"], f"{base}/{about['rfilename']}", about["size"],
               about.get("lfs", {}).get("sha256", ""), about["blobId"])
        for about in fake.siblings()
    ]  # fmt: skip


def test_all_comes_in_ranges_and_is_hashed(served: FakeHub, tmp_path: Path) -> None:
    said: list[Any] = []
    got = fetch(files(served), tmp_path, lambda *told: said.append(told))
    assert (tmp_path / "model.safetensors").read_bytes() == BIG and (tmp_path / "empty.txt").read_bytes() == b""
    assert got.bytes == served.fetched == len(BIG) + len(SMALL)
    asked = [headers["Range"] for _method, path, headers in served.seen if path.endswith(".safetensors")]
    assert sorted(asked)[0] == "bytes=0-8191" and len(asked) == 5
    assert said[-1] == (got.bytes, got.bytes, "bytes", "verify") and set(got.known) == set(served.files)
    again = fetch(files(served), tmp_path, quiet)
    assert (again.bytes, again.known, served.fetched) == (0, got.known, got.bytes)


def test_an_interrupted_download_goes_on_where_it_was(served: FakeHub, tmp_path: Path) -> None:
    served.breaks["model.safetensors"] = 3000
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fetching, "TRIES", 1)
        with pytest.raises(Unavailable, match="bytes early"):
            fetch(files(served), tmp_path, quiet)
    served.breaks.clear()
    served.sent.clear()
    got = fetch(files(served), tmp_path, quiet)
    assert 0 < got.bytes < len(BIG) and served.fetched == got.bytes
    assert (tmp_path / "model.safetensors").read_bytes() == BIG


def test_a_connection_that_breaks_is_taken_up_again_at_once(served: FakeHub, tmp_path: Path) -> None:
    served.breaks["model.safetensors"] = 2500
    fetch(files(served), tmp_path, quiet)
    assert (tmp_path / "model.safetensors").read_bytes() == BIG
    assert served.sent["model.safetensors"] < 2 * len(BIG)


def test_a_server_without_ranges_is_read_from_the_start(served: FakeHub, tmp_path: Path) -> None:
    served.ranges = False
    fetch(files(served), tmp_path, quiet)
    assert (tmp_path / "model.safetensors").read_bytes() == BIG


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_content_that_was_not_promised_does_not_stay(served: FakeHub, tmp_path: Path, name: str) -> None:
    wanted = files(served)
    whole = served.files[name]
    served.files[name] = bytes(len(whole))
    with pytest.raises(BadModel, match="not the content") as raised:
        fetch(wanted, tmp_path, quiet)
    assert raised.value.file == name and not (tmp_path / name).exists()
    served.files[name] = whole
    fetch(wanted, tmp_path, quiet)
    assert (tmp_path / name).read_bytes() == whole


def test_a_file_that_is_gone_and_a_full_disk_are_said(served: FakeHub, tmp_path: Path) -> None:
    wanted = files(served)
    del served.files["config.json"]
    with pytest.raises(NotFound, match="Entry not found"):
        fetch(wanted, tmp_path, quiet)
    huge = Remote("huge.safetensors", served.url, 1 << 42)
    with pytest.raises(NoSpace, match="make room"):
        fetch([huge], tmp_path, quiet)


def test_a_file_of_another_size_is_begun_anew(served: FakeHub, tmp_path: Path) -> None:
    fetch(files(served), tmp_path, quiet)
    with (tmp_path / "model.safetensors").open("ab") as file:
        file.write(b"more")
    assert fetch(files(served), tmp_path, quiet).bytes == len(BIG)


def test_whole_files_are_moved_with_their_folders(tmp_path: Path) -> None:
    (tmp_path / "from/inner").mkdir(parents=True)
    (tmp_path / "from/inner/a").write_text("a")
    (tmp_path / "to").mkdir()
    move([Remote("inner/a", "", 1)], tmp_path / "from", tmp_path / "to")
    assert (tmp_path / "to/inner/a").read_text() == "a" and not (tmp_path / "from/inner/a").exists()
