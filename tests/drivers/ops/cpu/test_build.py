"""Compiling the ops: once, safely beside others, and with a reason where it cannot be done."""

from __future__ import annotations

import ctypes
import os
import shutil
from pathlib import Path

import pytest

from llmos.drivers.ops.cpu import build
from llmos.syscalls.errors import NotSupported


PART = build.Part("cpu", "", frozenset())


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A source that compiles at once, for any processor."""
    sources = tmp_path / "sources"
    sources.mkdir()
    (sources / "answer.cpp").write_text('extern "C" int answer() { return 41; }')
    monkeypatch.setattr(build, "SOURCES", sources)
    if not shutil.which("g++"):
        pytest.skip("there is no g++")
    return sources


def test_a_library_is_built_once_and_anew_when_its_source_changes(small: Path, tmp_path: Path) -> None:
    first = build.library(PART, tmp_path / "cache")
    assert ctypes.CDLL(str(first)).answer() == 41
    built = first.stat().st_mtime_ns
    assert build.library(PART, tmp_path / "cache") == first and first.stat().st_mtime_ns == built
    (small / "answer.cpp").write_text('extern "C" int answer() { return 42; }')
    second = build.library(PART, tmp_path / "cache")
    assert second != first and ctypes.CDLL(str(second)).answer() == 42
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == sorted([first.name, second.name])


def test_what_another_process_put_there_meanwhile_is_replaced_whole(small: Path, tmp_path: Path) -> None:
    path = build.library(PART, tmp_path / "cache")
    loaded, inode = ctypes.CDLL(str(path)), path.stat().st_ino
    build._compile(str(shutil.which("g++")), PART, path)
    assert path.stat().st_ino != inode
    assert loaded.answer() == 41


def test_a_source_that_does_not_compile_is_told(small: Path, tmp_path: Path) -> None:
    (small / "answer.cpp").write_text("this is no C++")
    with pytest.raises(NotSupported, match=r"g\+\+ failed with status 1: .*answer\.cpp"):
        build.library(PART, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_without_a_compiler_the_reason_names_it(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(NotSupported, match="no compiler no-such-compiler"):
        build.library(PART, tmp_path / "cache")


def test_a_folder_that_cannot_be_written_is_told(small: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(NotSupported, match="could not be compiled below"):
        build.library(PART, tmp_path / "cache")


def test_a_processor_without_the_instructions_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(build, "CPU_INFO", tmp_path / "none")
    with pytest.raises(NotSupported, match="the processor has no avx512_bf16, avx512bw"):
        build.library(build.WHOLE, tmp_path / "cache")
    with pytest.raises(NotSupported, match="the processor has no avx2, f16c, fma"):
        build.library(build.QUANTIZED, tmp_path / "cache")


def test_a_part_is_made_of_its_own_sources(small: Path, tmp_path: Path) -> None:
    (small / "quantized.cpp").write_text('extern "C" int product() { return 7; }')
    part = build.Part("part", "quantized", frozenset(), build.FLAGS)
    path = build.library(part, tmp_path / "cache")
    loaded = ctypes.CDLL(str(path))
    assert path.name.startswith("part-") and loaded.product() == 7 and not hasattr(loaded, "answer")
    (small / "answer.cpp").write_text("this is no C++")
    assert build.library(part, tmp_path / "cache") == path


def test_the_cache_is_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/some/where")
    assert build.default_cache() == Path("/some/where/llmos/ops")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert build.default_cache() == Path(os.environ["HOME"], ".cache/llmos/ops")
