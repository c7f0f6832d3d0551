"""The nine rights and eleven kinds are part of the contract."""

from __future__ import annotations

from llmos.syscalls.types import ALL_RIGHTS, Kind, Right, WorkClass


def test_the_nine_rights() -> None:
    assert [right.value for right in Right] == [
        "read", "write", "run", "create", "list", "wait", "dup", "grant", "manage"
    ]  # fmt: skip
    assert frozenset(Right) == ALL_RIGHTS


def test_the_kinds() -> None:
    assert {kind.value for kind in Kind} == {
        "session", "system", "device", "driver", "model", "context", "lease", "buffer", "file", "mount", "task"
    }  # fmt: skip


def test_the_work_classes_from_urgent_to_patient() -> None:
    assert [work_class.value for work_class in WorkClass] == ["interactive", "batch", "background"]
