"""Who may import whom: between the four folders, and inside each by the order of its rooms.

A room is a file or sub-package directly in a folder. A file imports rooms that stand before its own in the list, never
after, so there are no cycles. What stands under `if TYPE_CHECKING:` is not imported and does not count.
"""

from __future__ import annotations

import graphlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sources import FOLDERS, ROOT, Import, imports, modules, name_of

ROOMS = {
    "syscalls": "errors types events answers describe spec wire frames shm calls driver manual",
    "kernel": (
        "settings restart placing namespace policy arbiter alert_rules config console store journal ledger advice "
        "metrics handles pending requests session resident residency cooling idling lane eviction scheduler buffers "
        "children services channel link sharing discovery supervisor speed objects quota dispatch instruments advising "
        "alarms procfs holdings recipes memory returning observing locating unloading models swaps inference files "
        "tasks fitting following transforms tunes sessions joining actions handlers yielding core server __main__"
    ),
    "drivers": (
        "requests tunes contract parent hookspecs plugins sampling ops quant formats engine filesystems transform "
        "tuning devices buffers convert pulse outgoing link leases pacing held tuning_calls orders metering "
        "device_calls file_calls host worker conformance"
    ),
    "userland": (
        "places options interrupt flow inputs protocol link methods held private join pump bulk system_flows "
        "why_flows object_flows reader client aio objects async_objects embedding dashboard gateway "
        "reports cli shell programs"
    ),
}

THIRD_PARTY = {
    "syscalls": {"msgpack", "msgspec"},
    "kernel": {"msgpack", "msgspec", "psutil", "zmq"},
    "drivers": {
        "gguf", "huggingface_hub", "jinja2", "llguidance", "msgpack", "msgspec", "numpy", "optuna", "peft", "pluggy",
        "psutil", "pyarrow", "pynvml", "safetensors", "tokenizers", "torch", "torchmetrics", "transformers", "triton",
        "zmq",
    },
    "userland": {
        "matplotlib", "msgpack", "msgspec", "multipart", "opentelemetry", "prometheus_client", "prompt_toolkit",
        "psutil", "rich", "starlette", "tensorboard", "uvicorn", "wandb", "zmq",
    },
}  # fmt: skip

PLAIN_ROOMS = ("drivers/engine", "drivers/devices", "drivers/ops")
"""They run where only torch and transformers are installed: no messages or sockets, of the contract only the errors."""

HEAVY = {
    "torch", "torchmetrics", "transformers", "triton", "peft", "numpy", "optuna", "matplotlib", "pluggy", "pynvml",
    "tensorboard", "wandb", "pyarrow", "safetensors", "tokenizers",
}  # fmt: skip


def allowed(folder: str, imported: Import) -> bool:
    """Whether a folder may import this at all."""
    top, _, rest = imported.module.partition(".")
    if top == "llmos":
        return rest.split(".")[0] in {folder, "syscalls"} if rest else False
    return top in sys.stdlib_module_names or top in THIRD_PARTY[folder]


def targets(imported: Import, known: set[str]) -> Iterator[str]:
    """The source files that an import names, by import name."""
    for name in (imported.module, *(f"{imported.module}.{name}" for name in imported.names)):
        if name in known:
            yield name


def place(path: Path, imported: Import) -> str:
    return f"{path.relative_to(ROOT)}:{imported.line} imports {imported.module} {', '.join(imported.names)}"


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folder_imports_only_what_it_may(folder: str) -> None:
    found = [place(path, i) for path in modules(folder) for i in imports(path) if not allowed(folder, i)]
    assert not found


@pytest.mark.parametrize("room", PLAIN_ROOMS)
def test_engine_devices_and_ops_know_no_messages(room: str) -> None:
    found = [
        place(path, i)
        for path in modules(room)
        for i in imports(path)
        if i.module.split(".")[0] in {"msgspec", "msgpack", "zmq"}
        or (i.module.startswith("llmos.syscalls") and i.module != "llmos.syscalls.errors")
    ]
    assert not found


def room_of(name: str) -> str:
    """`llmos.kernel.handlers.model` is in the room `handlers`."""
    return [*name.split("."), "__init__"][2]


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_room_has_its_place_in_the_order(folder: str) -> None:
    rooms = {room_of(name_of(path)) for path in modules(folder)} - {"__init__"}
    listed = ROOMS[folder].split()
    assert len(listed) == len(set(listed))
    assert not rooms - set(listed), "give each new room its place in ROOMS, after the rooms that it imports"


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_room_imports_only_rooms_before_it(folder: str) -> None:
    order = ["__init__", *ROOMS[folder].split()]
    known = {name_of(path) for path in modules(folder)}
    found = []
    for path in modules(folder):
        own = room_of(name_of(path))
        if own == "__init__":  # the face of the package, which shows what is below
            continue
        for i in imports(path):
            rooms = {room_of(name) for name in targets(i, known)}
            found += [f"{place(path, i)}: {r} is not before {own}" for r in rooms if order.index(r) > order.index(own)]
    assert not found


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_file_imports_itself_by_a_detour(folder: str) -> None:
    known = {name_of(path) for path in modules(folder)}
    graph = {
        name_of(path): {name for i in imports(path) for name in targets(i, known) if name != name_of(path)}
        for path in modules(folder)
        if path.name != "__init__.py"
    }
    tuple(graphlib.TopologicalSorter(graph).static_order())


def test_the_checks_see_a_planted_offence(tmp_path: Path) -> None:
    assert not allowed("kernel", Import("torch.nn", ("Linear",), 1, later=True))
    assert not allowed("kernel", Import("llmos.drivers.contract", (), 1, later=False))
    assert not allowed("userland", Import("llmos", ("kernel",), 1, later=False))
    assert allowed("kernel", Import("llmos.syscalls.types", (), 1, later=False))
    assert allowed("kernel", Import("os.path", (), 1, later=False))
    path = ROOT / "kernel" / "planted.py"  # never written: only its name counts
    source = tmp_path / "planted.py"
    source.write_text(
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    from .core import Kernel\n"
        "def f():\n    from .handlers import model\n"
        "try:\n    import torch\nexcept ImportError:\n    from . import server\n"
    )
    found = [(i.module, i.names, i.later) for i in imports_as(source, path)]
    assert found == [
        ("typing", ("TYPE_CHECKING",), False),
        ("llmos.kernel.handlers", ("model",), True),
        ("torch", (), False),
        ("llmos.kernel", ("server",), False),
    ]


def imports_as(source: Path, path: Path) -> list[Import]:
    """The imports of a file as if it stood elsewhere."""
    from sources import _imports, tree

    return list(_imports(tree(source).body, name_of(path).split(".")[:-1], later=False))


LOADED = """
import importlib, json, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""


def loaded_by(names: list[str]) -> set[str]:
    """Top-level modules that are loaded once these are imported, in a fresh process."""
    done = subprocess.run([sys.executable, "-c", LOADED, *names], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


@pytest.mark.parametrize("folder", ["syscalls", "kernel", "userland"])
def test_nothing_heavy_is_loaded_at_run_time(folder: str) -> None:
    names = [name_of(path) for path in modules(folder) if path.name != "__main__.py"]
    assert not loaded_by(names) & HEAVY


def test_a_heavy_import_would_be_seen() -> None:
    assert {"pluggy", "msgspec"} <= loaded_by(["llmos.drivers.hookspecs", "llmos.syscalls.types"])


def test_the_errors_need_nothing_but_the_standard_library() -> None:
    assert not loaded_by(["llmos.syscalls.errors"]) & {"msgspec", "msgpack", "zmq"}


def test_the_kernel_loads_no_user_interface() -> None:
    names = [name_of(path) for path in modules("kernel") if path.name != "__main__.py"]
    assert not loaded_by(names) & {"rich", "prompt_toolkit", "asyncio"}
