"""Where models may come from."""

from __future__ import annotations

from . import folder, gguf_file, hub, remote
from .job import Fillers

FILLERS = Fillers(
    files=folder.fill,
    urls={hub.START: hub.fill, **dict.fromkeys(remote.STARTS, remote.fill)},
    endings={gguf_file.ENDING: gguf_file.fill},
)
