"""One connection: what arrives before its end is read, its end is seen and stays seen."""

from __future__ import annotations

from pathlib import Path

import pytest
import zmq

from llmos.userland.link import Link, NoKernel


def test_what_was_sent_before_the_end_is_still_read_and_the_end_stays_seen(folder: Path) -> None:
    with zmq.Context() as context:
        router = context.socket(zmq.ROUTER)
        router.bind(f"ipc://{folder}/s")
        link = Link(f"ipc://{folder}/s")
        link.open()
        link.send([b"a", b"b"])
        route, *frames = router.recv_multipart()
        assert frames == [b"a", b"b"]
        router.send_multipart([route, b"c", b"d"])
        assert link.read_soon() or link.read_soon()
        assert list(link.inbox) == [b"c", b"d"]
        assert not link.broken() and not link.read()
        router.close(0)
        assert not link.wait(5000)
        assert link.broken() and link.broken()
        link.close()
        assert not link.is_open


def test_a_descriptor_ends_the_wait(folder: Path) -> None:
    import os

    with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
        router.bind(f"ipc://{folder}/s")
        link = Link(f"ipc://{folder}/s")
        link.open()
        read, write = os.pipe()
        assert not link.wait(0, read)
        os.write(write, b"x")
        assert link.wait(None, read)
        link.close()
        os.close(read)
        os.close(write)


@pytest.mark.parametrize("leave_file", [False, True])
def test_nobody_listens(folder: Path, leave_file: bool) -> None:
    if leave_file:
        with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
            router.bind(f"ipc://{folder}/s")
    link = Link(f"ipc://{folder}/s")
    with pytest.raises(NoKernel, match=str(folder)):
        link.open()
    link.close()


def test_inproc_needs_no_file() -> None:
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
        router.bind("inproc://here")
        link = Link("inproc://here", context)
        link.open()
        link.send([b"a", b"b"])
        assert router.recv_multipart()[1:] == [b"a", b"b"]
        link.close()
        assert not context.closed
