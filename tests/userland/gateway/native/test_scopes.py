"""Every call has its scope, or the reason why it is not offered."""

from __future__ import annotations

from llmos.syscalls.spec import SYSCALLS
from llmos.userland.gateway.core.scopes import SCOPES
from llmos.userland.gateway.native.scopes import CALLS, NOT_OFFERED


def test_no_call_is_forgotten() -> None:
    assert CALLS.keys() | NOT_OFFERED.keys() == SYSCALLS.keys()
    assert not CALLS.keys() & NOT_OFFERED.keys()


def test_every_scope_exists_and_every_reason_is_told() -> None:
    assert set(CALLS.values()) <= SCOPES
    assert all(len(why) > 20 for why in NOT_OFFERED.values())


def test_what_changes_the_system_needs_more_than_reading() -> None:
    changing = {
        "load_model",
        "unload_model",
        "control_object",
        "remove_path",
        "transform_model",
        "tune",
        "close_handle",
    }
    assert not any(CALLS[name] in ("read", "infer") for name in changing)
