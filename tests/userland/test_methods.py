"""Methods made of flows: they keep their signature, and mypy sees it."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

from llmos.userland import object_flows
from llmos.userland.methods import awaitable, blocking
from llmos.userland.objects import Model

PROMISES = '''
from llmos.syscalls.calls import Infer, InferStream, ListDir
from llmos.syscalls.types import Handle, Inference, Text
from llmos.userland import Client, aboot, boot
from llmos.userland.async_objects import AsyncModel
from llmos.userland.objects import Model


def good(client: Client, model: Model) -> None:
    answer: Inference = client.call(Infer(model=Handle(1), input=Text(text="a")))
    names: list[str] = [entry.path for entry in client.call(ListDir(path="/"))]
    for chunk in client.stream(InferStream(model=Handle(1), input=Text(text="a"))):
        text: str = chunk.text
    whole: str = client.stream(InferStream(model=Handle(1), input=Text(text="a"))).result.text
    said: str = model.infer("x", max_tokens=4, temperature=0.5, timeout=3).text
    with boot() as system:
        loaded: Model = system.load_model("/models/tiny", pin=True)


async def good_too(model: AsyncModel) -> None:
    said: str = (await model.infer("x", seed=1)).text
    async for chunk in await model.infer_stream("x"):
        text: str = chunk.text
    async with aboot() as system:
        loaded: AsyncModel = await system.load_model("/models/tiny")


def bad(client: Client, model: Model) -> None:
    a: str = client.call(ListDir(path="/"))  # bad
    client.call(ListDir(path=3))  # bad
    client.call(ListDir(pth="/"))  # bad
    for chunk in client.stream(InferStream(model=Handle(1), input=Text(text="a"))):
        chunk.label  # bad
    client.stream(ListDir(path="/"))  # bad
    model.infer("x", max_token=4)  # bad
    model.infer("x", max_tokens="4")  # bad
    model.infer(4.5)  # bad
    b: int = model.infer("x").text  # bad


async def bad_too(model: AsyncModel) -> None:
    c: str = model.infer("x")  # bad
    await model.infer("x", sead=1)  # bad
'''


def test_the_signature_and_the_documentation_are_those_of_the_flow() -> None:
    assert "max_tokens" in str(inspect.signature(Model.infer)) or "options" in str(inspect.signature(Model.infer))
    for made in (blocking(object_flows.wait), awaitable(object_flows.wait)):
        assert inspect.signature(made) == inspect.signature(object_flows.wait)
        assert made.__doc__ == object_flows.wait.__doc__ and made.__name__ == "wait"


@pytest.mark.slow
def test_the_type_checker_finds_every_planted_error_and_no_other(root: Path, folder: Path) -> None:
    view = folder / "view/llmos"
    view.mkdir(parents=True)
    for name in ("syscalls", "userland"):
        (view / name).symlink_to(root / name)
    source = folder / "promises.py"
    source.write_text(PROMISES)
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--explicit-package-bases", "--namespace-packages",
         "--cache-dir", str(root / ".mypy_cache"), str(source)],
        capture_output=True, text=True, cwd=folder, env={"MYPYPATH": str(folder / "view"), "PATH": "/usr/bin:/bin"},
        check=False,
    )  # fmt: skip
    lines = [line for line in checked.stdout.splitlines() if line.startswith("promises.py:") and ": error:" in line]
    found = {int(line.split(":")[1]) for line in lines}
    planted = {n for n, line in enumerate(PROMISES.splitlines(), 1) if line.endswith("# bad")}
    assert found == planted, checked.stdout + checked.stderr
