"""What a kernel holds for its clients, so that a test can see that it all went away.

Each detector maps an identity to a description, as in `leaks`; `left_since` compares two looks.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from leaks import below
from system.kernel_process import KernelProcess, eventually
from system.raw_client import RawClient

Seen = dict[str, str]


class Footprint:
    """Looks at a kernel from outside, and through a session of its own that takes no handles."""

    def __init__(self, kernel: KernelProcess, client: RawClient) -> None:
        self._kernel = kernel
        self._client = client
        self.detectors: dict[str, Callable[[], Seen]] = {
            "descriptor": self.descriptors,
            "child": self.children,
            "buffer": self.buffers,
            "runtime file": self.runtime_files,
            "ledger row": self.ledger,
            "object": self.objects,
            "request": self.requests,
        }
        self.before = self.look()

    def look(self) -> dict[str, Seen]:
        return {name: detect() for name, detect in self.detectors.items()}

    def left(self) -> list[str]:
        """What exists now and did not at the beginning."""
        return [
            f"{name} {identity}: {text}"
            for name, seen in self.look().items()
            for identity, text in seen.items()
            if identity not in self.before[name]
        ]

    def gone(self) -> None:
        """Nothing is left, at once or as soon as it has ended."""
        eventually(self._kernel, lambda: not self.left(), self.left)

    def descriptors(self) -> Seen:
        """Open descriptors, as the n-th of each sort: a restarted host has new ones of the same sorts."""
        sorts = Counter[str]()
        seen = Seen()
        for link in Path(f"/proc/{self._kernel.pid}/fd").iterdir():
            with suppress(FileNotFoundError):  # closed meanwhile
                target = str(link.readlink())
                sort = target.partition("[")[0] if target.startswith(("socket:", "pipe:")) else target
                sorts[sort] += 1
                seen[f"{sort} {sorts[sort]}"] = target
        return seen

    def children(self) -> Seen:
        """The n-th child process: a restarted host takes the place of the one before."""
        children = self._kernel.children()
        return {f"{n}": f"{pid} {children[pid]}" for n, pid in enumerate(sorted(children), 1)}

    def buffers(self) -> Seen:
        return {str(path): "file" for path in below(self._kernel.buffers)}

    def runtime_files(self) -> Seen:
        return {path.name: "file" for path in self._kernel.runtime.iterdir()}

    def ledger(self) -> Seen:
        """Bytes of devices that are promised or used, by device, kind and owner; not what processes are measured by."""
        rows = json.loads(self._client.read("/sys/memory"))
        held = [row for row in rows if row["what"] not in ("foreign", "runtime")]
        return {f"{row['device']} {row['what']} {row['owner']} {row['ledger']}": "bytes" for row in held}

    def objects(self) -> Seen:
        folders = ("sessions", "models", "contexts", "leases")
        return {f"{folder}/{name}": "" for folder in folders for name in self._client.names(f"/proc/{folder}")}

    def requests(self) -> Seen:
        return dict.fromkeys(self._client.requests(), "in flight")
