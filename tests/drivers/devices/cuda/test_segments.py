"""The allocator of segments on a driver whose memory is the host's: addresses that lose memory and get it again."""

from __future__ import annotations

import ctypes
import itertools
import shutil
import subprocess
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from llmos.drivers.devices.cuda.anchors import Pools
from llmos.drivers.devices.cuda.segments import FLAGS, SOURCE, Segments, compile_library, library

from llmos.syscalls.errors import NotSupported

COMPILER = shutil.which("cc") or ""
pytestmark = pytest.mark.skipif(not COMPILER, reason="there is no C compiler")
FAKE = Path(__file__).with_name("fake_driver.c")
GRAIN, DEVICE, OUT_OF_MEMORY = 1 << 16, 3, 2


class Fake:
    """The allocator, and the driver below it."""

    def __init__(self, folder: Path) -> None:
        driver = folder / "driver.so"
        compile_library(COMPILER, [FAKE], driver)
        self.driver = ctypes.CDLL(str(driver))
        path = library(folder)
        self.segments = Segments(path, str(driver))
        self._api = ctypes.CDLL(str(path))
        self._api.segments_take.argtypes = [ctypes.c_ssize_t, ctypes.c_int, ctypes.c_void_p]
        self._api.segments_take.restype = ctypes.c_void_p
        self._api.segments_give.argtypes = [ctypes.c_void_p, ctypes.c_ssize_t, ctypes.c_int, ctypes.c_void_p]

    def take(self, bytes: int) -> int | None:
        found: int | None = self._api.segments_take(bytes, DEVICE, None)
        return found

    def give(self, base: int, bytes: int) -> None:
        self._api.segments_give(base, bytes, DEVICE, None)

    def fail(self, call: str, after: int = 0, error: int = OUT_OF_MEMORY) -> None:
        self.driver.fake_fail(call.encode(), after, error)

    def books(self) -> tuple[int, int, int]:
        """Of the driver: segments of addresses, handles, mappings."""
        names = ("fake_reserved", "fake_created", "fake_mapped")
        reserved, created, mapped = (ctypes.c_long.in_dll(self.driver, name).value for name in names)
        return reserved, created, mapped


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Fake:
    return Fake(tmp_path_factory.mktemp("segments"))


@pytest.fixture
def fake(built: Fake) -> Iterator[Fake]:
    built.fail("")
    yield built
    built.fail("")
    assert built.books() == (0, 0, 0) and built.segments.dropped_bytes == 0, "nothing stays behind"


def held(base: int, size: int) -> ctypes.Array[ctypes.c_char]:
    return (ctypes.c_char * size).from_address(base)


def test_memory_goes_and_comes_at_the_same_addresses(fake: Fake) -> None:
    size = GRAIN + 1
    base = fake.take(size)
    assert base is not None and fake.books() == (1, 0, 1)
    held(base, size)[size - 1] = b"x"
    assert fake.segments.around(base + 2 * GRAIN - 1) == base and fake.segments.around(base + 2 * GRAIN) is None
    fake.segments.drop([base])
    assert fake.books() == (1, 0, 0) and fake.segments.dropped_bytes == 2 * GRAIN
    assert fake.segments.around(base) == base, "nobody else gets the addresses"
    fake.segments.fill([base])
    assert fake.books() == (1, 0, 1) and fake.segments.dropped_bytes == 0
    assert held(base, size).raw == bytes(size), "the memory is another one"
    held(base, size)[0] = b"y"
    fake.give(base, size)


def test_segments_that_have_no_memory_are_given_back_too(fake: Fake) -> None:
    bases = [base for _ in range(3) if (base := fake.take(10))]
    assert len(set(bases)) == 3
    fake.segments.drop(bases[:2])
    fake.segments.drop(bases[:1])
    assert fake.segments.dropped_bytes == 2 * GRAIN, "to lose memory twice is to lose it once"
    for base in bases:
        fake.give(base, 10)
    fake.give(bases[0], 10)


CREATING = ("cuMemCreate", "cuMemMap", "cuMemSetAccess")


@pytest.mark.parametrize("call", ["cuMemGetAllocationGranularity", "cuMemAddressReserve", *CREATING])
def test_without_memory_nothing_is_taken(fake: Fake, call: str) -> None:
    fake.fail(call)
    assert fake.take(10) is None
    assert fake.books() == (0, 0, 0)


@pytest.mark.parametrize("call", CREATING)
@pytest.mark.parametrize("after", [0, 1])
def test_what_cannot_be_filled_whole_stays_empty_and_can_be_tried_again(fake: Fake, call: str, after: int) -> None:
    bases = [base for _ in range(2) if (base := fake.take(GRAIN))]
    fake.segments.drop(bases)
    fake.fail(call, after)
    with pytest.raises(RuntimeError, match=r"CUDA error: out of memory \(2\)"):
        fake.segments.fill(bases)
    assert fake.books() == (2, 0, 0) and fake.segments.dropped_bytes == 2 * GRAIN
    fake.fail("")
    fake.segments.fill(bases)
    for base in bases:
        held(base, GRAIN)[0] = b"z"
        fake.give(base, GRAIN)


def test_what_cannot_be_unmapped_keeps_its_memory(fake: Fake) -> None:
    base = fake.take(GRAIN)
    assert base is not None
    fake.fail("cuMemUnmap", error=700)
    with pytest.raises(RuntimeError, match="no words for"):
        fake.segments.drop([base])
    assert fake.segments.dropped_bytes == 0 and fake.books() == (1, 0, 1)
    fake.fail("")
    with pytest.raises(RuntimeError, match=r"\(1\)"):
        fake.segments.drop([base - GRAIN * 1024])
    fake.give(base, GRAIN)


def test_of_a_thread_without_a_context_one_is_made(fake: Fake) -> None:
    base = fake.take(1)
    assert base is not None and ctypes.c_long.in_dll(fake.driver, "fake_contexts").value == 1
    fake.give(base, 1)


@pytest.mark.skipif(torch.version.cuda is not None, reason="this torch is built for CUDA")
def test_a_torch_without_cuda_takes_no_allocator(fake: Fake) -> None:
    with pytest.raises(NotSupported, match="torch takes no allocator"):
        Pools(fake.segments)


def test_it_is_built_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = library(tmp_path)
    before = path.stat().st_mtime_ns
    assert library(tmp_path) == path and path.stat().st_mtime_ns == before
    assert [each.name for each in tmp_path.iterdir()] == [path.name]
    monkeypatch.setenv("CC", "no-such-compiler")
    with pytest.raises(NotSupported, match="no-such-compiler"):
        library(tmp_path / "other")


def test_what_is_missing_is_told(tmp_path: Path) -> None:
    def refused(make: Callable[[], object], why: str) -> None:
        with pytest.raises(NotSupported, match=why):
            make()

    path = library(tmp_path)
    refused(lambda: Segments(path, str(tmp_path / "nowhere.so")), "nowhere.so")
    refused(lambda: Segments(tmp_path / "nothing.so"), "nothing.so")
    bare = tmp_path / "bare.c"
    bare.write_text("int cuCtxGetCurrent;\n")
    compile_library(COMPILER, [bare], tmp_path / "bare.so")
    refused(lambda: Segments(path, str(tmp_path / "bare.so")), "has no cuCtxSetCurrent")
    bare.write_text("this is no C\n")
    refused(lambda: compile_library(COMPILER, [bare], tmp_path / "other.so"), "failed with status")
    (tmp_path / "file").touch()
    refused(lambda: library(tmp_path / "file"), "could not be compiled")


AGREES = """
#include <stddef.h>
#include <cuda.h>
#include "{source}"
#define SAME(a, b) _Static_assert((a) == (b), #a " is " #b)
SAME(sizeof(Properties), sizeof(CUmemAllocationProp));
SAME(offsetof(Properties, location), offsetof(CUmemAllocationProp, location));
SAME(offsetof(Properties, win32), offsetof(CUmemAllocationProp, win32HandleMetaData));
SAME(offsetof(Properties, flags), offsetof(CUmemAllocationProp, allocFlags));
SAME(sizeof(Location), sizeof(CUmemLocation));
SAME(sizeof(Access), sizeof(CUmemAccessDesc));
SAME(offsetof(Access, flags), offsetof(CUmemAccessDesc, flags));
SAME(sizeof(Address), sizeof(CUdeviceptr));
SAME(sizeof(Handle), sizeof(CUmemGenericAllocationHandle));
SAME(PINNED, CU_MEM_ALLOCATION_TYPE_PINNED);
SAME(ON_DEVICE, CU_MEM_LOCATION_TYPE_DEVICE);
SAME(READ_WRITE, CU_MEM_ACCESS_FLAGS_PROT_READWRITE);
SAME(MINIMUM_GRANULARITY, CU_MEM_ALLOC_GRANULARITY_MINIMUM);
SAME(OUT_OF_MEMORY, CUDA_ERROR_OUT_OF_MEMORY);
SAME(INVALID_VALUE, CUDA_ERROR_INVALID_VALUE);
"""
HEADERS = [
    Path(place, "backends", "nvidia", "include")
    for place in itertools.chain.from_iterable(
        spec.submodule_search_locations or () for spec in [find_spec("triton")] if spec is not None
    )
]


@pytest.mark.skipif(not any(each.exists() for each in HEADERS), reason="there is no cuda.h")
def test_what_is_declared_is_what_nvidia_declares(tmp_path: Path) -> None:
    program = tmp_path / "agrees.c"
    program.write_text(AGREES.format(source=SOURCE))
    include = next(each for each in HEADERS if each.exists())
    command = [COMPILER, *FLAGS, f"-I{include}", "-fsyntax-only", str(program)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
