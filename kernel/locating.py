"""The files of models: located by the filesystem driver that keeps them for us until `release`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from llmos.syscalls.driver import HostFsControl, HostLocate, HostRelease, Located
from llmos.syscalls.errors import NotSupported

from .namespace import told_from_outside
from .supervisor import Driver

if TYPE_CHECKING:
    from .core import Kernel
    from .objects import ModelObject
    from .session import Session


async def locate(kernel: Kernel, session: Session, path: str, draft: str = "") -> tuple[Driver, Located]:
    """The files behind a path, with those of the draft model at `draft`, and the driver that keeps them.

    Raises what finding them raises, and NotSupported when another driver keeps the draft model.
    """
    driver, located = await _find(kernel, session, path)
    if not draft:
        return driver, located
    whole = None
    try:
        keeper, small = await _find(kernel, session, draft)
        if keeper is driver:
            whole = replace(located, draft=small)
            return driver, whole
        release(keeper, small)
        why = f"{draft} is kept by {keeper.name} and {path} by {driver.name}"
        raise NotSupported(f"a draft model lies beside its model: {why}; put both in one place", why=why)
    finally:
        if whole is None:
            release(driver, located)


def release(driver: Driver, located: Located) -> None:
    """The files are no longer needed."""
    for each in (located, located.draft):
        if driver.link is not None and each is not None and each.token:
            driver.link.call(HostRelease(token=each.token))


def tell_measured(model: ModelObject) -> None:
    """Let the file system note what requests have shown of a model, for its search; nothing waits for the answer."""
    values, link, located = model.speed.values(), model.files.link, model.located
    if link is not None and "first_token_s" in values:
        about = {"name": located.path, "version": located.version, "device": model.driver.name}
        link.call(HostFsControl(source=located.source, action="measure", options={**about, "values": values}))


async def locate_at(
    kernel: Kernel, filesystem: str, source: str, inner: str, path: str, version: str = ""
) -> tuple[Driver, Located]:
    """The files at a place inside of a file system, which the program calls `path`; raises what finding them raises."""
    driver = kernel.filesystem(filesystem, path)
    await kernel.supervisor.wait_ready(driver)
    assert driver.link is not None
    located = driver.link.call(HostLocate(source=source, path=inner, version=version))
    with told_from_outside(inner, path):
        found = await kernel.runner.kept(located, lambda late: release(driver, late))
    return driver, replace(found, source=source)


async def _find(kernel: Kernel, session: Session, path: str) -> tuple[Driver, Located]:
    point, inner = session.mounts.resolve(path)
    return await locate_at(kernel, point.filesystem, point.source, inner, path)
