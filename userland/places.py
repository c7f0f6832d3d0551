"""Where the kernel and its files are: environment over default."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

SOCKET = "kernel.sock"


def runtime_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """The folder of the running kernel's sockets."""
    if named := environ.get("LLMOS_RUNTIME_DIR"):
        return Path(named).expanduser()
    if session := environ.get("XDG_RUNTIME_DIR"):
        return Path(session) / "llmos"
    return Path(tempfile.gettempdir()) / f"llmos-{os.getuid()}"


def home_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """The folder of models, journal, configuration and shell history."""
    return Path(environ.get("LLMOS_HOME") or "~/.llmos").expanduser()


def kernel_address(runtime: Path | None = None) -> str:
    """The address that clients connect to."""
    return f"ipc://{(runtime or runtime_folder()) / SOCKET}"


def host_path(text: str) -> Path | None:
    """The path on this machine's own file system that `text` names, or None for a path of the namespace.

    `./`, `../`, `~/` and `file:` mark the host's own; so do `.`, `..` and `~` alone.
    """
    if text.startswith("file:"):
        return Path(text.removeprefix("file:")).expanduser().absolute()
    if text in (".", "..", "~") or text.startswith(("./", "../", "~/")):
        return Path(os.path.normpath(Path(text).expanduser().absolute()))
    return None
