"""Flows about the whole system that need a kernel to misbehave or to be large; the usual way is in test_objects."""

from __future__ import annotations

from typing import Any

import pytest

from llmos.syscalls.types import Entry
from llmos.userland.client import Client
from llmos.userland.objects import System


@pytest.fixture
def scripted(fake: Any) -> Any:
    with System(Client(fake.address, patience=0.2)) as system:
        yield system


def test_a_folder_of_many_pages_is_listed_whole(scripted: Any, fake: Any) -> None:
    paths = [f"/m/{n:05}" for n in range(2500)]

    def page(request: Any) -> None:
        rest = [path for path in paths if path > request.body["after"]][:1000]
        request.reply([Entry(path=path, kind="file") for path in rest])

    fake.on("list_dir", page)
    assert [entry.path for entry in scripted.list("/m")] == paths


def test_the_system_goes_on_in_a_new_session_when_the_kernel_was_replaced(scripted: Any, fake: Any) -> None:
    from llmos.syscalls.errors import PeerGone

    before = scripted.session
    fake.stop()
    fake.forget()
    fake.start()
    fake.on("list_dir", lambda request: request.reply([]))
    with pytest.raises(PeerGone, match="all its handles are gone"):
        scripted.list("/")
    assert scripted.list("/") == []
    assert scripted.session != before
