"""boot and connect, and their async twins."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from system.model_folder import write_model

from llmos.syscalls.errors import LlmosError
from llmos.userland import NoKernel, aboot, aconnect, boot, connect
from llmos.userland.private import PrivateKernel

DRIVERS = ["null0", "models"]


def left() -> list[Path]:
    return list(Path(tempfile.gettempdir()).glob("llmos-boot-*"))


def test_a_private_kernel_lasts_as_long_as_its_block(folder: Path) -> None:
    write_model(folder / "models/null")
    with pytest.raises(ZeroDivisionError), boot("/models/null", drivers=DRIVERS, home=folder) as system:
        assert [info.name for info in system.models()] == ["null"]
        assert left()
        _ = 1 / 0
    assert left() == []


def test_a_model_that_cannot_be_loaded_ends_the_kernel(folder: Path) -> None:
    with pytest.raises(LlmosError, match="nothing"):
        boot(["/models/nothing"], drivers=DRIVERS, home=folder)
    assert left() == []


async def test_the_async_twins(folder: Path) -> None:
    write_model(folder / "models/null")
    async with aboot("/models/null", drivers=DRIVERS, home=folder) as system:
        assert [info.name for info in await system.models()] == ["null"]
        address = "ipc://" + (await system.stat()).fields["runtime"] + "/kernel.sock"
        async with aconnect(address) as other:
            assert other.session != system.session
        third = await aconnect(address)
        assert (await third.stat()).kind == "system"
        await third.close()
    with pytest.raises(LlmosError, match="nothing"):
        await aboot("/models/nothing", drivers=DRIVERS, home=folder)
    assert left() == []


def test_connect_joins_the_running_kernel(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMOS_RUNTIME_DIR", str(folder / "none"))
    with pytest.raises(NoKernel, match="llmos serve"):
        connect()
    kernel = PrivateKernel(["null0"], home=folder)
    monkeypatch.setenv("LLMOS_RUNTIME_DIR", str(kernel.folder))
    with connect(program="me", tenant="lab") as system:
        (session,) = system.sessions()
        assert (session.fields["program"], session.fields["tenant"]) == ("me", "lab")
    kernel.stop()


def test_a_kernel_that_dies_is_an_error_and_not_a_hang(folder: Path) -> None:
    with boot(drivers=["null0"], home=folder) as system:
        pid = system.stat().fields["pid"]
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(LlmosError, match=r"kernel broke: it was ended by SIGKILL\. It said:\n") as told:
            while True:
                system.stat()
        assert f"(pid {pid})" in str(told.value) and "<6>" not in str(told.value)
        with pytest.raises(NoKernel):
            system.stat()
    assert left() == []


async def test_a_kernel_that_dies_tells_the_async_twin_its_last_words_too(folder: Path) -> None:
    async with aboot(drivers=["null0"], home=folder) as system:
        pid = (await system.stat()).fields["pid"]
        os.kill(pid, signal.SIGSEGV)
        with pytest.raises(LlmosError, match=rf"(?s)it was ended by SIGSEGV. It said:.*pid {pid}"):
            while True:
                await system.stat()
    assert left() == []


@pytest.mark.slow
def test_the_quickstart_runs(root: Path, folder: Path) -> None:
    env = {**os.environ, "LLMOS_HOME": str(folder), "LLMOS_LOAD_DRIVERS": "cpu0,models"}
    script = root / "docs/examples/quickstart.py"
    command = [sys.executable, "-W", "error", str(script)]
    shown = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert shown.returncode == 0, shown.stderr
    assert "tiny awake" in shown.stdout


def test_importing_the_package_loads_nothing_heavy() -> None:
    script = (
        "import sys, llmos.userland\n"
        "assert not {'zmq', 'asyncio', 'rich', 'prompt_toolkit', 'torch'} & set(sys.modules), 'loaded too early'\n"
        "from llmos.userland import boot, connect\n"
        "assert callable(boot) and callable(connect)\n"
        "assert not {'rich', 'prompt_toolkit', 'torch', 'transformers'} & set(sys.modules)\n"
        "try:\n    llmos.userland.nothing\nexcept AttributeError as error:\n    assert 'it has' in str(error)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
