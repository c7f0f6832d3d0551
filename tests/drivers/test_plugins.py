"""Discovery and loading of packages, installed for the test into a folder of their own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from llmos.drivers import plugins
from llmos.drivers.hookspecs import DEVICES, FILESYSTEMS, MODELS, OPS
from llmos.syscalls.errors import DriverFailed, Exists, NotFound, NotSupported

GOOD = """
    from llmos.drivers.hookspecs import hookimpl

    @hookimpl
    def register_devices(register):
        register("{name}", dict)
"""
OPS_PACKAGE = """
    from llmos.drivers.hookspecs import hookimpl

    @hookimpl
    def register_ops(register):
        register("matmul", "fast", max, lambda spec: (spec > 3, "too small"))
"""


@pytest.fixture
def install(package: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Install a package into this process."""

    def make(name: str, source: str, group: str = DEVICES, **options: str) -> None:
        monkeypatch.syspath_prepend(str(package(name, source.replace("{name}", name), group, **options).path))

    return make


def test_the_built_in_drivers_are_announced_like_any_other() -> None:
    assert {"null0", "cpu0"} <= {point.name for point in plugins.announced(DEVICES, {})}
    assert "models" in {point.name for point in plugins.announced(FILESYSTEMS, {})}


def test_only_what_is_listed_is_announced() -> None:
    listed = plugins.announced(DEVICES, {"LLMOS_LOAD_DRIVERS": "null0, models"})
    assert [point.name for point in listed] == ["null0"]
    assert plugins.announced(DEVICES, {"LLMOS_LOAD_DRIVERS": ""}) == []


def test_an_installed_device_is_loaded_by_its_name(install: Callable[..., None]) -> None:
    install("good0", GOOD)
    plugin = plugins.load("good0")
    assert (plugin.group, plugin.devices) == (DEVICES, {"good0": dict})


def test_a_file_system_is_loaded_by_its_name(install: Callable[..., None]) -> None:
    install("files0", GOOD.replace("register_devices", "register_filesystems"), FILESYSTEMS)
    plugin = plugins.load("files0")
    assert (plugin.group, plugin.filesystems) == (FILESYSTEMS, {"files0": dict})


def test_nothing_else_is_imported(install: Callable[..., None]) -> None:
    install("good1", GOOD)
    install("other1", "raise AssertionError('imported without need')")
    plugins.load("good1")
    assert "driver_good1" in sys.modules and "driver_other1" not in sys.modules


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(NotFound, match=r"'nobody'.*null0"):
        plugins.load("nobody")


def test_a_name_announced_twice_is_refused_with_both_packages(install: Callable[..., None]) -> None:
    install("twice0", GOOD, distribution="first-package")
    install("twice0", GOOD, distribution="second-package")
    with pytest.raises(Exists, match=r"first-package 1.0.*second-package 1.0"):
        plugins.load("twice0")


@pytest.mark.parametrize(
    ("source", "cause"),
    [
        ("1/0", "ZeroDivisionError"),
        ("import no_such_library_anywhere", "no_such_library_anywhere"),
        ("def (", "SyntaxError"),
        (GOOD.replace("(register)", "(register, surplus)"), "surplus"),
        (GOOD.replace("register_devices", "register_nonsense"), "register_nonsense"),
        (GOOD.replace('register("{name}", dict)', "raise OSError('no card')"), "no card"),
    ],
)
def test_a_package_that_fails_is_reported_with_the_cause(install: Callable[..., None], source: str, cause: str) -> None:
    install("bad0", source)
    sys.modules.pop("driver_bad0", None)
    with pytest.raises(DriverFailed, match=r"'bad0' of driver-bad0 1\.0") as caught:
        plugins.load("bad0")
    assert cause in caught.value.cause
    assert plugins.load("null0").devices


def test_a_typed_error_of_a_package_stays_what_it_is(install: Callable[..., None]) -> None:
    install("bad1", "from llmos.syscalls.errors import NotSupported\nraise NotSupported('x', why='needs a card')")
    with pytest.raises(NotSupported) as caught:
        plugins.load("bad1")
    assert caught.value.why == "needs a card"


def test_a_package_must_register_what_it_announces(install: Callable[..., None]) -> None:
    install("bad2", GOOD.replace("{name}", "another"))
    with pytest.raises(DriverFailed, match=r"announces 'bad2'.*registers another"):
        plugins.load("bad2")


def test_operations_of_all_packages_come_together_and_failures_beside_them(install: Callable[..., None]) -> None:
    install("ops0", OPS_PACKAGE, OPS)
    install("ops1", "1/0", OPS)
    operations, failures = plugins.load_ops({})
    (found,) = [op for op in operations if op.name == "fast"]
    assert (found.op, found.run(1, 2), found.supports(1)) == ("matmul", 2, (False, "too small"))
    assert ["ZeroDivisionError" in str(failure) for failure in failures] == [True]


def test_operations_follow_the_list_of_drivers(install: Callable[..., None]) -> None:
    install("ops2", OPS_PACKAGE, OPS)
    assert plugins.load_ops({"LLMOS_LOAD_DRIVERS": "null0"}) == ([], [])
    assert len(plugins.load_ops({"LLMOS_LOAD_DRIVERS": "ops2"})[0]) == 1


MODELS_PACKAGE = """
from llmos.drivers.hookspecs import hookimpl

@hookimpl
def register_models(register):
    register("Plain", dict)
    register("Rows", list, batched=True)
"""


def test_classes_of_models_come_together_and_failures_beside_them(install: Callable[..., None]) -> None:
    install("models0", MODELS_PACKAGE, MODELS)
    install("models1", "1/0", MODELS)
    found, failures = plugins.load_models({})
    assert [(each.architecture, each.build, each.batched) for each in found if each.build in (dict, list)] == [
        ("Plain", dict, False), ("Rows", list, True)
    ]  # fmt: skip
    assert ["ZeroDivisionError" in str(failure) for failure in failures] == [True]
    assert plugins.load_models({"LLMOS_LOAD_DRIVERS": "null0"}) == ([], [])


def test_hook_calls_are_printed_on_request(
    install: Callable[..., None], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install("good2", GOOD)
    plugins.load("good2")
    assert capsys.readouterr().err == ""
    monkeypatch.setenv("LLMOS_TRACE_HOOKS", "1")
    plugin = plugins.load("good2")
    plugin.manager.hook.driver_started(name="good2")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("hook register_devices(register=") and lines[0].endswith("by good2 -> []")
    assert lines[1] == "hook driver_started(name='good2') by nobody -> []"


def test_a_failing_hook_is_printed_with_its_error(
    install: Callable[..., None], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install("bad3", GOOD.replace('register("{name}", dict)', "raise OSError('no card')"))
    monkeypatch.setenv("LLMOS_TRACE_HOOKS", "1")
    with pytest.raises(DriverFailed):
        plugins.load("bad3")
    assert "raised OSError('no card')" in capsys.readouterr().err


def test_a_host_needs_no_heavy_library_to_start() -> None:
    """What takes long to import must not be in the way of a restart."""
    code = (
        "import sys, llmos.drivers.host; from llmos.drivers import plugins; plugins.load('null0');"
        "print(*sorted({'torch', 'numpy', 'transformers', 'asyncio', 'rich', 'psutil'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
