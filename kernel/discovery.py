"""Which drivers there are, found by the metadata of packages, and how the machine's cores are shared among them.

Nothing of a package is imported. A device that not every machine has names the file that the system makes for it, by an
entry point in the group `llmos.nodes` with the name of the device.
"""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from pathlib import Path

DEVICES = "llmos.devices"
FILESYSTEMS = "llmos.filesystems"
ADDITIONS = ("llmos.ops", "llmos.models")
NODES = "llmos.nodes"


def discover(wanted: Sequence[str] | None, root: Path = Path("/")) -> tuple[list[tuple[str, str]], list[str]]:
    """(name, group) of every announced driver that is wanted, and the wanted names nobody announces. The name of a
    package that adds ops or classes of models to the devices of others is known, but no driver.

    Without a wish everything is taken but the `null` devices, which exist for tests, and devices whose files are not
    below `root`: they cost no process on a machine that lacks them.
    """
    from importlib.metadata import entry_points

    found = {point.name: group for group in (DEVICES, FILESYSTEMS) for point in entry_points(group=group)}
    if wanted is None:
        nodes = {point.name: point.value for point in entry_points(group=NODES)}
        taken = [name for name in sorted(found) if not name.startswith("null") and present(nodes.get(name), root)]
        return [(name, found[name]) for name in taken], []
    missing = [n for n in wanted if n not in found]
    others = {point.name for group in ADDITIONS for point in entry_points(group=group)} if missing else set()
    return [(n, found[n]) for n in wanted if n in found], [n for n in missing if n not in others]


def thread_budget(devices: Mapping[str, int | None], cores: int) -> dict[str, int]:
    """Threads for each device host: what configuration asks for, the rest shared, the sum never above the cores.

    Null devices compute nothing and count for nothing. Every host gets at least one.
    """
    asked = {name: n for name, n in devices.items() if n is not None}
    free = [name for name, n in devices.items() if n is None and not name.startswith("null")]
    left = max(0, cores - sum(asked.values()))
    share = {name: max(1, left // len(free)) for name in free}
    null = {name: 1 for name, n in devices.items() if n is None and name.startswith("null")}
    return {**{name: max(1, min(n, cores)) for name, n in asked.items()}, **share, **null}


def present(node: str | None, root: Path) -> bool:
    """Whether the file of a device is there; one that names none always is.

    `dev.name` is the file /dev/name, and `dev.name2` the third of the files /dev/name<number>: a container may have any
    of them.
    """
    if node is None:
        return True
    path = root.joinpath(*node.split("."))
    stem = path.name.rstrip(string.digits)
    if stem == path.name:
        return path.exists()
    numbered = [file for file in path.parent.glob(f"{stem}*") if file.name.removeprefix(stem).isdigit()]
    return len(numbered) > int(path.name.removeprefix(stem))
