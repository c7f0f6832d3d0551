"""/dev, /proc and /sys: the kernel's own tables as files, made when they are read. Pure: a tree of names and texts.

`/dev/NAME` is a device; `/proc/{sessions,models,tasks,requests,drivers,services}/ID` are objects as JSON; `/sys` holds
version, limits, memory (the ledger), queues (by model, class and owner), alerts, advice, codes (of reasons), runs (of
tuning, the records by id), metrics (Prometheus text) and journal (the newest records).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from llmos.syscalls.errors import NotDirectory, NotFound
from llmos.syscalls.types import Entry, Kind

from .advice.codes import CODES
from .advising import queues
from .instruments import refresh

if TYPE_CHECKING:
    from .core import Kernel
    from .requests import Request

Tree = dict[str, Any]
"""Folders are maps, files are functions that give their bytes."""

_PROC = {
    "sessions": Kind.SESSION,
    "models": Kind.MODEL,
    "contexts": Kind.CONTEXT,
    "tasks": Kind.TASK,
    "drivers": Kind.DRIVER,
    "leases": Kind.LEASE,
}


class ProcFs:
    """Serves the file systems `dev`, `proc` and `sys`."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    def list(self, source: str, path: str) -> list[Entry]:
        """Raises NotFound, NotDirectory."""
        node = self._walk(source, path)
        if not isinstance(node, dict):
            raise NotDirectory(f"/{source}{path} is a file")
        return [self._entry(f"{path.rstrip('/')}/{name}", inner) for name, inner in sorted(node.items())]

    def stat(self, source: str, path: str) -> Entry:
        """Raises NotFound."""
        return self._entry(path, self._walk(source, path))

    def read(self, source: str, path: str) -> bytes:
        """The whole text of a file. Raises NotFound, NotDirectory."""
        node = self._walk(source, path)
        if isinstance(node, dict):
            raise NotDirectory(f"/{source}{path} is a folder; list it instead")
        text: bytes = node()
        return text

    def _entry(self, path: str, node: Any) -> Entry:
        if isinstance(node, dict):
            return Entry(path=path, kind="folder", fields={"entries": len(node)})
        return Entry(path=path, kind="file", mtime=self._kernel.wall())

    def _walk(self, source: str, path: str) -> Any:
        node: Any = {"dev": self._dev, "proc": self._proc, "sys": self._sys}[source]()
        for part in path.strip("/").split("/") if path != "/" else ():
            if not isinstance(node, dict) or part not in node:
                raise NotFound(f"/{source}{path} does not exist")
            node = node[part]
        return node

    def _objects(self, kind: Kind) -> Tree:
        kernel = self._kernel
        named = kind in (Kind.DEVICE, Kind.DRIVER)
        found = [o for o in kernel.objects.values() if o.kind is kind]
        return {o.name if named else o.id: lambda o=o: _json(kernel.describe(o)) for o in found}

    def _dev(self) -> Tree:
        return self._objects(Kind.DEVICE)

    def _proc(self) -> Tree:
        tree: Tree = {name: self._objects(kind) for name, kind in _PROC.items()}
        requests = self._kernel.requests.values()
        tree["requests"] = {r.id: lambda r=r: _json(describe_request(self._kernel, r)) for r in requests}
        services = self._kernel.services.by_name.values()
        tree["services"] = {service.name: lambda s=service: _json(s.describe()) for service in services}
        return tree

    def _sys(self) -> Tree:
        kernel = self._kernel
        return {
            "version": lambda: _json(kernel.facts()),
            "limits": lambda: _json(kernel.config.limits),
            "memory": lambda: _json(_memory(kernel)),
            "queues": lambda: _json(queues(kernel)),
            "alerts": lambda: _json(kernel.alarms.raised()),
            "advice": lambda: _json(kernel.advisor.advice()),
            "codes": lambda: _json({code: each._asdict() for code, each in CODES.items()}),
            "runs": {name: lambda n=name: kernel.tunes.runs.text(n) for name in kernel.tunes.runs.names},
            "metrics": self._metrics,
            "journal": lambda: b"".join(_json(record) for record in kernel.journal.read(-1, limit=1000)),
        }

    def _metrics(self) -> bytes:
        refresh(self._kernel)
        return self._kernel.instruments.registry.render().encode()


def _memory(kernel: Kernel) -> list[dict[str, Any]]:
    """The rows of the ledger, and the names of the models that they belong to."""
    names = {model.host_id: model.name for model in kernel.models.by_id.values()}
    rows = [(row, names.get(row.owner, "")) for row in kernel.ledger.rows()]
    return [{**msgspec.to_builtins(row), "name": name} for row, name in rows]


def describe_request(kernel: Kernel, request: Request) -> dict[str, Any]:
    """A request in flight, and why it waits."""
    waits = kernel.scheduler.explain(request.id, kernel.runner.clock())
    return {
        "id": request.id,
        "call": request.spec.name,
        "session": request.session.id,
        "seconds": (kernel.runner.clock() - request.arrived) / 1e9,
        "state": "waiting" if waits is not None else "running",
        "reasons": [*request.reasons, *([kernel.decisions.complete(waits)] if waits is not None else [])],
    }


def _json(value: Any) -> bytes:
    return msgspec.json.encode(value) + b"\n"
