"""Each check of file systems catches the violation it is for, and a sound file system passes them all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from llmos.drivers.conformance.filesystem_checks import FILESYSTEM_CHECKS
from llmos.drivers.contract import FileInfo, Found, ModelSource
from llmos.syscalls.errors import NotFound, NotSupported, ReadOnly


def test_a_sound_file_system_passes(filesystem_bench: Callable[..., Any], failing: Any) -> None:
    assert failing(filesystem_bench, FILESYSTEM_CHECKS) == {}


def test_one_that_can_only_be_read_passes(filesystem_bench: Callable[..., Any], failing: Any, tree: type[Any]) -> None:
    class ReadOnlyTree(tree):  # type: ignore[misc]
        def open(self, path: str, mode: str, expected_version: str | None = None) -> Any:
            if mode in ("w", "a", "x"):
                raise ReadOnly(f"{path} cannot be written")
            return super().open(path, mode, expected_version)

        def stage(self, path: str) -> Any:
            self.at(path)
            raise NotSupported("nothing can be stored", why="read-only")

        def bring(self, path: str, sources: Any, recipe: Any, progress: Any) -> Any:
            raise ReadOnly(f"{path} cannot be written")

    assert failing(lambda: filesystem_bench(ReadOnlyTree), FILESYSTEM_CHECKS) == {}


def test_an_empty_source_passes(filesystem_bench: Callable[..., Any], failing: Any, tree: type[Any]) -> None:
    class Empty(tree):  # type: ignore[misc]
        def __init__(self, root: Path) -> None:
            super().__init__(root / "empty")
            self.root.mkdir()

    assert failing(lambda: filesystem_bench(Empty), FILESYSTEM_CHECKS) == {}


def breaking(**methods: Callable[..., Any]) -> dict[str, Callable[..., Any]]:
    return methods


def unsorted_list(self: Any, path: str, after: str = "") -> Any:
    return list(reversed(type(self).__mro__[1].list(self, path, after)))  # type: ignore[attr-defined]


def list_forever(self: Any, path: str, after: str = "") -> Any:
    return type(self).__mro__[1].list(self, path)  # type: ignore[attr-defined]


def deep_list(self: Any, path: str, after: str = "") -> Any:
    found = type(self).__mro__[1].list(self, path, after)  # type: ignore[attr-defined]
    return [replace(info, path="/deep" + info.path) for info in found]


def odd_kinds(self: Any, found: Path) -> FileInfo:
    return replace(type(self).__mro__[1].info(self, found), kind="thing")  # type: ignore[attr-defined]


def empty_stat(self: Any, path: str) -> FileInfo:
    return replace(type(self).__mro__[1].stat(self, path), bytes=0)  # type: ignore[attr-defined]


def stat_anything(self: Any, path: str) -> FileInfo:
    try:
        return type(self).__mro__[1].stat(self, path)  # type: ignore[attr-defined, no-any-return]
    except NotFound:
        return FileInfo(path, "file")


def anywhere(self: Any, path: str) -> Path:
    return Path(f"{self.root}/{path}".replace("\0", ""))


def list_of_file(self: Any, path: str, after: str = "") -> Any:
    if self.existing(path).is_file():
        return []
    return type(self).__mro__[1].list(self, path, after)  # type: ignore[attr-defined]


def any_mode(self: Any, path: str, mode: str, expected_version: str | None = None) -> Any:
    known = mode if mode in ("r", "w", "a", "x") else "r"
    return type(self).__mro__[1].open(self, path, known, expected_version)  # type: ignore[attr-defined]


def overwriting(self: Any, path: str, mode: str, expected_version: str | None = None) -> Any:
    return type(self).__mro__[1].open(self, path, mode.replace("x", "w"), expected_version)  # type: ignore[attr-defined]


def never_conflicts(self: Any, path: str, mode: str, expected_version: str | None = None) -> Any:
    return type(self).__mro__[1].open(self, path, mode)  # type: ignore[attr-defined]


def visible_at_once(self: Any, path: str, mode: str, expected_version: str | None = None) -> Any:
    handle = type(self).__mro__[1].open(self, path, mode, expected_version)  # type: ignore[attr-defined]
    if mode == "w":
        self.at(path).touch()
    return handle


def twisted_handle(**changes: Callable[..., Any]) -> Callable[..., Any]:
    """An `open` whose handles have other methods."""

    def opening(self: Any, path: str, mode: str, expected_version: str | None = None) -> Any:
        handle = type(self).__mro__[1].open(self, path, mode, expected_version)  # type: ignore[attr-defined]
        handle.__class__ = type("Twisted", (type(handle),), changes)
        return handle

    return opening


def writes_anyway(self: Any, offset: int, data: bytes) -> int:
    return len(data)


def no_remove(self: Any, path: str) -> None:
    self.existing(path)


def wrong_sizes(self: Any, path: str, version: str = "") -> Any:
    token, source = type(self).__mro__[1].locate(self, path, version)  # type: ignore[attr-defined]
    return token, replace(source, files=[replace(f, bytes=f.bytes + 1) for f in source.files])


def no_files(self: Any, path: str, version: str = "") -> Any:
    self.existing(path)
    return "t", ModelSource(path, "v", [])


def full_stage(self: Any, path: str) -> Any:
    token, folder = type(self).__mro__[1].stage(self, path)  # type: ignore[attr-defined]
    (folder / "left-over").touch()
    return token, folder


def early_stage(self: Any, path: str) -> Any:
    self.at(path).mkdir(exist_ok=True)
    return type(self).__mro__[1].stage(self, path)  # type: ignore[attr-defined]


def any_commit(self: Any, token: str, manifest: Any, expected_version: str | None = None) -> Any:
    return type(self).__mro__[1].commit(self, token, manifest)  # type: ignore[attr-defined]


def odd_version(self: Any, token: str, manifest: Any, expected_version: str | None = None) -> Any:
    type(self).__mro__[1].commit(self, token, manifest, expected_version)  # type: ignore[attr-defined]
    return "newest"


def worst_first(self: Any, path: str, query: str, filters: Any, limit: int) -> Any:
    return [Found("/a", 0.1), Found("/b", 0.9)]


def any_action(self: Any, action: str, options: Any) -> Any:
    return {}


def bring_of(**changes: Any) -> Callable[..., Any]:
    """A `bring` whose answer is changed."""

    def bring(self: Any, path: str, sources: Any, recipe: Any, progress: Any) -> Any:
        answer = type(self).__mro__[1].bring(self, path, sources, recipe, progress)  # type: ignore[attr-defined]
        return {name: value for name, value in {**answer, **changes}.items() if value is not None}

    return bring


def bring_empty(self: Any, path: str, sources: Any, recipe: Any, progress: Any) -> Any:
    answer = type(self).__mro__[1].bring(self, path, sources, recipe, progress)  # type: ignore[attr-defined]
    for file in self.at(path).iterdir():
        file.write_bytes(b"")
    return answer


def bring_and_leave(self: Any, path: str, sources: Any, recipe: Any, progress: Any) -> Any:
    if isinstance(sources[0], str):
        self.at(path).mkdir()
    return type(self).__mro__[1].bring(self, path, sources, recipe, progress)  # type: ignore[attr-defined]


def bring_beyond(self: Any, path: str, sources: Any, recipe: Any, progress: Any) -> Any:
    progress(7, 3, "files", "copy")
    return type(self).__mro__[1].bring(self, path, sources, recipe, progress)  # type: ignore[attr-defined]


def send_anywhere(self: Any, path: str, target: str, recipe: Any, progress: Any) -> Any:
    return {}


BROKEN: dict[str, tuple[str, dict[str, Callable[..., Any]]]] = {
    "unsorted": ("root", breaking(list=unsorted_list)),
    "entries below": ("root", breaking(list=deep_list)),
    "unknown kinds": ("root", breaking(info=odd_kinds)),
    "stat differs": ("stat", breaking(stat=empty_stat)),
    "after is ignored": ("pages", breaking(list=list_forever)),
    "everything exists": ("missing", breaking(stat=stat_anything)),
    "accepts ..": ("escapes", breaking(at=anywhere)),
    "lists files": ("not_a_folder", breaking(list=list_of_file)),
    "short reads": ("reads", breaking(open=twisted_handle(read=lambda self, offset, count: b"x"))),
    "new version at close": ("reads", breaking(open=twisted_handle(close=lambda self: "other"))),
    "writes to read-only": ("no_write_to_read", breaking(open=twisted_handle(write=writes_anyway))),
    "any mode": ("bad_mode", breaking(open=any_mode)),
    "x overwrites": ("writes", breaking(open=overwriting)),
    "never conflicts": ("writes", breaking(open=never_conflicts)),
    "visible at once": ("writes", breaking(open=visible_at_once)),
    "discard keeps": ("writes", breaking(open=twisted_handle(discard=lambda self: self.close()))),
    "removes nothing": ("writes", breaking(remove=no_remove)),
    "sizes differ": ("locates", breaking(locate=wrong_sizes)),
    "locates nothing": ("locates", breaking(locate=no_files)),
    "stage is not empty": ("commits", breaking(stage=full_stage)),
    "stage is visible": ("commits", breaking(stage=early_stage)),
    "any commit": ("commits", breaking(commit=any_commit)),
    "another version": ("commits", breaking(commit=odd_version)),
    "worst first": ("searches", breaking(search=worst_first)),
    "brings another version": ("brings", breaking(bring=bring_of(version="newest"))),
    "answers without a size": ("brings", breaking(bring=bring_of(bytes=None))),
    "answers with an object": ("brings", breaking(bring=bring_of(more=Path()))),
    "brings other bytes": ("brings", breaking(bring=bring_empty)),
    "leaves a part": ("brings", breaking(bring=bring_and_leave)),
    "more than all": ("brings", breaking(bring=bring_beyond)),
    "sends anywhere": ("sends", breaking(send=send_anywhere)),
    "any action": ("unknown_action", breaking(control=any_action)),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_system_is_caught(
    filesystem_bench: Callable[..., Any], failing: Any, tree: type[Any], name: str
) -> None:
    check, methods = BROKEN[name]
    kind = type("Broken", (tree,), methods)
    assert check in failing(lambda: filesystem_bench(kind), FILESYSTEM_CHECKS)


def test_each_check_catches_something() -> None:
    assert {check.__name__ for check in FILESYSTEM_CHECKS} == {check for check, _methods in BROKEN.values()}
