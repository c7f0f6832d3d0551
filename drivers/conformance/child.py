"""The process that `runner` starts: it carries out checks and says what comes of each, one JSON line at a time."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TextIO

from llmos.drivers import contract, plugins
from llmos.drivers.hookspecs import DEVICES
from llmos.syscalls.describe import suggest
from llmos.syscalls.errors import BadArgument, LlmosError

from .device_bench import DeviceBench
from .device_checks import DEVICE_CHECKS
from .filesystem_checks import FILESYSTEM_CHECKS, FileSystemBench
from .report import Verdict
from .verdicts import Absent, Broken


class _Bench(Protocol):
    def close(self) -> None:
        """Give everything back."""


def work(order: Mapping[str, Any]) -> None:
    """Run the checks that are not done, until one fails."""
    with os.fdopen(order["report"], "w", buffering=1) as reports:
        bench, kind, checks = _bench(order)
        _say(reports, kind=kind, checks=[_title(check) for check in checks])
        for run in checks:
            if _title(run) in order["done"]:
                continue
            _say(reports, begin=_title(run))
            verdict, text = _verdict(run, bench)
            _say(reports, check=_title(run), verdict=verdict.value, text=text)
            if verdict is Verdict.FAILS:
                return
        bench.close()


def _say(reports: TextIO, **message: Any) -> None:
    reports.write(json.dumps(message) + "\n")


def _bench(order: Mapping[str, Any]) -> tuple[_Bench, str, Sequence[Callable[[Any], None]]]:
    plugin = plugins.load(order["name"])
    if plugin.group == DEVICES:
        device = plugin.devices[order["name"]]()
        for key in sorted(set(order["config"]) - set(device.config_keys)):
            text = f"driver {order['name']} has no setting {key!r}; {suggest(key, device.config_keys)}"
            raise BadArgument(text, name=key, want=", ".join(sorted(device.config_keys)))
        device.start(order["name"], 1, order["config"])
        return DeviceBench(order["name"], device, _source(Path(order["model"]))), "device", DEVICE_CHECKS
    system = plugin.filesystems[order["name"]](order["source"], order["config"])
    return FileSystemBench(system), "filesystem", FILESYSTEM_CHECKS


def _verdict(run: Callable[[Any], None], bench: _Bench) -> tuple[Verdict, str]:
    try:
        run(bench)
    except Absent as absent:
        return Verdict.ABSENT, str(absent)
    except Broken as broken:
        return Verdict.FAILS, str(broken)
    except LlmosError as error:
        return Verdict.FAILS, f"it raised {type(error).__name__}: {error}"
    return Verdict.HOLDS, ""


def _title(check: Callable[[Any], None]) -> str:
    return (check.__doc__ or check.__name__).partition("\n")[0].rstrip(".")


def _source(folder: Path) -> contract.ModelSource:
    files = [
        contract.SourceFile(str(path.relative_to(folder)), path, path.stat().st_size)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    ]
    manifest = folder / "manifest.json"
    content = json.loads(manifest.read_text()) if manifest.is_file() else {}
    return contract.ModelSource(f"/models/{folder.name}", str(content.get("version", "1")), files, content)


if __name__ == "__main__":
    work(json.loads(sys.argv[1]))
