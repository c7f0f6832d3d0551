"""A full disk: what cannot be written is said, what was there stays, and the kernel goes on."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from llmos.syscalls.errors import NoResources, NoSpace
from system.kernel_process import COMMAND, KernelProcess, eventually, running
from system.raw_client import RawClient

MOUNT = 'mount -t tmpfs -o size="$SIZE" tiny "$AT" && exec "$@"'
PRIVATE = ["unshare", "--mount", "sh", "-c", MOUNT, "sh"]
"""A mount namespace of its own, in which a small disk lies at $AT."""


def can_mount() -> bool:
    try:
        environ = {"SIZE": "64k", "AT": "/mnt", "PATH": "/usr/bin:/bin:/usr/sbin:/sbin"}
        return subprocess.run([*PRIVATE, "true"], env=environ, capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


pytestmark = pytest.mark.skipif(not can_mount(), reason="a private mount namespace needs root and unshare(1)")


@contextmanager
def small_disk(
    folder: Path, at: Path, size: str, config: str = "", drivers: str = "files", **environ: str
) -> Iterator[KernelProcess]:
    """A kernel that sees a disk of `size` at `at`."""
    at.mkdir(parents=True, exist_ok=True)
    given = {"SIZE": size, "AT": str(at), **environ}
    with running(folder, config, drivers=drivers, environ=given, command=[*PRIVATE, *COMMAND]) as kernel:
        yield kernel


def seen_by(kernel: KernelProcess, path: Path) -> Path:
    """A path as the kernel sees it."""
    return Path(f"/proc/{kernel.pid}/root{path}")


def write(client: RawClient, path: str, data: bytes) -> None:
    file = client.call("open_file", path=path, mode="w")["handle"]
    client.call("write_file", file=file, offset=0, data=data)
    client.call("close_handle", handle=file)


def test_a_file_that_does_not_fit_is_no_space_and_what_was_there_stays(folder: Path) -> None:
    with small_disk(folder, folder / "home/files", "200k") as kernel, kernel.client() as client:
        write(client, "/home/kept", b"kept")
        file = client.call("open_file", path="/home/kept", mode="w")["handle"]
        error = None
        written = 0
        while error is None:
            error = client.wait(client.send("write_file", file=file, offset=written, data=b"x" * 50_000)).error
            written += 50_000
            assert written < 10_000_000
        assert isinstance(error, NoSpace)
        assert client.read("/home/kept") == b"kept"
        with kernel.client() as other:
            abandoned = other.call("open_file", path="/home/other", mode="w")
            assert abandoned["handle"]
        goodbye = client.wait(client.send("close_handle", handle=file))
        assert goodbye.error is None or isinstance(goodbye.error, NoSpace)
        client.call("remove_path", path="/home/kept")
        write(client, "/home/again", b"y" * 50_000)
        assert len(client.read("/home/again")) == 50_000
        assert client.driver("files")["fields"]["restarts"] == 0


def test_a_session_that_ends_on_a_full_disk_leaves_no_half_file(folder: Path) -> None:
    with small_disk(folder, folder / "home/files", "200k") as kernel, kernel.client() as client:
        with kernel.client() as writer:
            file = writer.call("open_file", path="/home/half", mode="w")["handle"]
            for part in range(3):
                writer.call("write_file", file=file, offset=part * 50_000, data=b"x" * 50_000)
            assert isinstance(writer.error("write_file", file=file, offset=150_000, data=b"x" * 60_000), NoSpace)
        client.quiet()
        assert client.names("/home") == []
        write(client, "/home/whole", b"y" * 60_000)


def test_a_journal_that_cannot_be_stored_goes_on_in_memory(folder: Path) -> None:
    disk = folder / "tiny"
    config = f'[journal]\npath = "{disk}/journal.db"\n'
    with small_disk(folder, disk, "2m", config, drivers="") as kernel, kernel.client() as client:
        ballast = seen_by(kernel, disk) / "ballast"
        with pytest.raises(OSError, match="No space"), ballast.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))

        def said(text: str) -> bool:
            records = client.call("read_journal", system=client.system, after=-1, limit=10_000)
            return any(text in record["text"] for record in records)

        for _ in range(100):
            with kernel.client("noise" * 30):
                pass
        eventually(kernel, lambda: said("the journal cannot be stored, it goes on in memory"), kernel.said)
        ballast.unlink()
        eventually(kernel, lambda: said("the journal is stored again"), kernel.said)


def test_a_journal_on_a_full_disk_does_not_keep_the_kernel_from_ending(folder: Path) -> None:
    disk = folder / "tiny"
    with small_disk(folder, disk, "64k", f'[journal]\npath = "{disk}/journal.db"\n', drivers="") as kernel:
        for _ in range(100):
            with kernel.client("noise" * 30):
                pass


def test_a_buffer_that_does_not_fit_into_memory_is_refused(folder: Path) -> None:
    memory = folder / "shm"
    with small_disk(folder, memory, "1m", drivers="", LLMOS_SHM_DIR=str(memory)) as kernel, kernel.client() as client:
        error = client.error("alloc_buffer", system=client.system, bytes=2 << 20)
        assert isinstance(error, NoResources)
        held = [client.call("alloc_buffer", system=client.system, bytes=256 << 10)["handle"] for _ in range(3)]
        assert isinstance(client.error("alloc_buffer", system=client.system, bytes=512 << 10), NoResources)
        for handle in held:
            client.call("close_handle", handle=handle)
        assert client.call("alloc_buffer", system=client.system, bytes=256 << 10)
