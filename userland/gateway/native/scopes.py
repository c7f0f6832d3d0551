"""Which scope each call of the table needs over HTTP, and which calls are not offered there, with the reason."""

from __future__ import annotations

from collections.abc import Mapping

from ..core.scopes import Scope

CALLS: Mapping[str, Scope] = {
    "list_objects": "read", "stat_object": "read", "stat_path": "read", "list_dir": "read", "search_fs": "read",
    "read_metrics": "read", "read_journal": "read", "watch_events": "read", "wait_task": "read",
    "infer": "infer", "infer_stream": "infer", "embed": "infer", "open_context": "infer", "cancel_task": "infer",
    "load_model": "load", "alloc_gpu": "load", "close_handle": "load",
    "tune": "tune",
    "unload_model": "manage", "transform_model": "manage", "control_object": "manage", "remove_path": "manage",
}  # fmt: skip
"""The calls that are offered."""

_HANDLES = "handles belong to a session; here objects go by their names and ids"
_FILES = "files are read and written whole: GET, PUT and DELETE /api/v1/files/PATH"

NOT_OFFERED: Mapping[str, str] = {
    "hello": "the gateway opens one session for each key",
    "dup_handle": _HANDLES,
    "grant_handle": _HANDLES,
    "revoke_handle": _HANDLES,
    "spawn_program": "a program runs with the rights of the kernel's user; start it on the machine itself",
    "alloc_buffer": "shared memory ends at the machine's edge; bytes travel as base64 in the body",
    "open_file": _FILES,
    "read_file": _FILES,
    "write_file": _FILES,
    "mount_fs": "it would open folders of the machine; mount them on the machine itself or in its configuration",
}
