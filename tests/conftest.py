"""Gives every test run a private temporary folder and home, and watches for leaks (`leaks.py`)."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

pytest_plugins = ["leaks"]

_CLEARED = ("LLMOS_LOAD", "LLMOS_CONFIG", "LLMOS_RUNTIME", "XDG_")
# No test is timed: on a busy machine a slow example is no failure.
settings.register_profile("llmos", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
settings.register_profile("quick", settings.get_profile("llmos"), max_examples=30, derandomize=True, database=None)
settings.load_profile("llmos")

ROOT = Path(__file__).resolve().parent.parent
WATCHED = tuple(ROOT / "tests" / name for name in ("kernel", "syscalls", "test_packaging.py"))
"""The tests of the covered packages. All others run up to ten times as long while they are watched, and add nothing."""
UNWATCHED = (ROOT / "tests/kernel/test_scheduler_load.py", ROOT / "tests/kernel/test_scheduler_machine.py")
"""Among them: long simulations of what others cover."""


def pytest_configure(config: pytest.Config) -> None:
    """The environment that tests and the processes they start see: nothing of the user's, no network, one thread."""
    os.environ["PYTEST_DEBUG_TEMPROOT"] = tempfile.gettempdir()  # pytest's own folders stay where they are
    tempfile.tempdir = os.environ["TMPDIR"] = tempfile.mkdtemp(prefix="lt-")
    # Tests with a second user reach sockets below it; the folders of parallel test processes lie in one another.
    Path(tempfile.tempdir).chmod(0o711)
    home = Path(tempfile.tempdir, "home")
    home.mkdir()
    if Path("/dev/shm").is_dir():
        os.environ["LLMOS_SHM_DIR"] = tempfile.mkdtemp(prefix="lt-", dir="/dev/shm")
    for name in [name for name in os.environ if name.startswith(_CLEARED)]:
        del os.environ[name]
    os.environ.update(LLMOS_HOME=str(home), HF_HOME=str(home / "hf"), HF_HUB_OFFLINE="1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = tempfile.gettempdir()  # importing torch._dynamo makes this folder
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the background of a script


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path in UNWATCHED or not any(item.path.is_relative_to(path) for path in WATCHED):
            item.add_marker("no_cover")


@pytest.fixture(autouse=True)
def _processes_of_others_are_not_watched_either(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    if request.node.get_closest_marker("no_cover"):
        monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)


def pytest_collection_finish() -> None:
    """What was imported stays: collections that pass it over take a tenth of the time, and tests a third less."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure(config: pytest.Config) -> None:
    for folder in (tempfile.gettempdir(), os.environ.get("LLMOS_SHM_DIR", "")):
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture
def folder() -> Iterator[Path]:
    """A temporary folder with a path short enough for sockets (108 bytes)."""
    with tempfile.TemporaryDirectory(prefix="t") as path:
        yield Path(path)
