"""Which drivers there are, and how many threads each gets."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmos.kernel.discovery import DEVICES, FILESYSTEMS, discover, present, thread_budget


def test_drivers_are_found_by_their_metadata() -> None:
    found, unknown = discover(None)
    assert ("cpu0", DEVICES) in found and ("models", FILESYSTEMS) in found and unknown == []
    assert not [name for name, _ in found if name.startswith("null")]
    assert discover(["null0", "nothing"]) == ([("null0", DEVICES)], ["nothing"])


def test_a_package_that_adds_to_the_devices_of_others_is_known_and_no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmos.kernel.discovery.ADDITIONS", ("console_scripts",))
    assert discover(["null0", "llmos", "nothing"]) == ([("null0", DEVICES)], ["nothing"])


@pytest.mark.parametrize(
    ("asked", "cores", "given"),
    [
        ({"a": None, "b": None, "null0": None}, 8, {"a": 4, "b": 4, "null0": 1}),
        ({"a": 3, "b": None}, 8, {"a": 3, "b": 5}),
        ({"a": 99, "b": None}, 4, {"a": 4, "b": 1}),
        ({}, 4, {}),
    ],
)
def test_threads_are_shared(asked: dict[str, int | None], cores: int, given: dict[str, int]) -> None:
    assert thread_budget(asked, cores) == given


# ---- devices that not every machine has


def make_nodes(root: Path, *names: str) -> Path:
    (root / "dev").mkdir()
    for name in names:
        (root / "dev" / name).touch()
    return root


@pytest.mark.parametrize(
    ("node", "there"),
    [(None, True), ("dev.gpu0", True), ("dev.gpu1", True), ("dev.gpu2", False), ("dev.kfd", True), ("dev.npu", False)],
)
def test_a_device_is_there_when_its_file_is(tmp_path: Path, node: str | None, there: bool) -> None:
    root = make_nodes(tmp_path, "gpu3", "gpu12", "gpuctl", "gpu-uvm", "kfd")
    assert present(node, root) == there


def test_nothing_is_there_without_the_folder(tmp_path: Path) -> None:
    assert not present("dev.gpu0", tmp_path / "none") and not present("dev.gpu", tmp_path / "none")


def test_gpus_that_a_machine_lacks_are_no_drivers_unless_they_are_asked_for(tmp_path: Path) -> None:
    names = [name for name, _ in discover(None, make_nodes(tmp_path, "nvidia0", "nvidia1", "nvidiactl"))[0]]
    assert [name for name in names if name.startswith("cuda")] == ["cuda0", "cuda1"] and "cpu0" in names
    assert not [name for name, _ in discover(None, tmp_path / "none")[0] if name.startswith("cuda")]
    assert discover(["cuda7"], tmp_path) == ([("cuda7", DEVICES)], [])
