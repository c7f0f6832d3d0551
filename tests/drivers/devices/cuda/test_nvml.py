"""What NVIDIA's driver tells, from recorded answers."""

from __future__ import annotations

import pytest
from recorded_nvml import TOTAL, UUIDS, RecordedNvml

from llmos.drivers.devices.cuda.nvml import Gpu, Nvml, pick, visible
from llmos.syscalls.errors import NotFound

GPUS = [Gpu(uuid, "H100") for uuid in UUIDS]


@pytest.mark.parametrize(
    ("wanted", "seen"),
    [
        (None, [0, 1]),
        ("", []),
        ("-1", []),
        ("1", [1]),
        ("1,0", [1, 0]),
        (" 1 , 0 ", [1, 0]),
        ("0,7,1", [0]),
        ("GPU-a0c7", [1]),
        ("GPU-", []),
        ("nothing", []),
    ],
)
def test_what_is_seen_is_what_cuda_shows(wanted: str | None, seen: list[int]) -> None:
    assert visible(GPUS, wanted) == [UUIDS[number] for number in seen]


def test_a_part_of_a_gpu_is_named_by_the_environment_alone() -> None:
    assert visible(GPUS, "MIG-3b1f,0") == ["MIG-3b1f", UUIDS[0]]


def test_a_gpu_that_is_not_there_or_not_shown_is_not_found() -> None:
    assert pick(GPUS, "1", 0) == UUIDS[1]
    with pytest.raises(NotFound, match="no GPU 2: this machine has 2"):
        pick(GPUS, None, 2)
    with pytest.raises(NotFound, match="CUDA_VISIBLE_DEVICES='1' shows 1"):
        pick(GPUS, "1", 1)


@pytest.mark.parametrize("old", [False, True])
def test_a_gpu_is_read_with_what_others_hold(old: bool) -> None:
    nvml = Nvml(RecordedNvml(bytes_as_text=old))
    assert [gpu.uuid for gpu in nvml.gpus()] == list(UUIDS)
    assert nvml.name(UUIDS[0]) == "NVIDIA H100 80GB HBM3"
    now = nvml.read(UUIDS[0])
    assert (now.total, now.used, now.processes) == (TOTAL, 3 << 30, {4242: 2 << 30})
    assert now.figures == {
        "temperature_c": 41, "clock_mhz": 1980, "memory_clock_mhz": 2619, "utilisation": 0.37, "power_w": 118.5,
        "compute_capability": "9.0",
    }  # fmt: skip
    assert now.foreign(4242, 0) == 1 << 30
    assert now.foreign(1, 512 << 20) == (3 << 30) - (512 << 20)
    assert now.foreign(1, 4 << 30) == 0


def test_what_a_gpu_does_not_tell_is_left_out() -> None:
    now = Nvml(RecordedNvml(silent=("temperature", "utilisation", "processes"))).read(UUIDS[1])
    assert "temperature_c" not in now.figures and "utilisation" not in now.figures and now.figures["power_w"] == 118.5
    assert now.processes == {}


def test_without_a_driver_no_gpu_is_found() -> None:
    with pytest.raises(NotFound, match="Library Not Found"):
        Nvml(RecordedNvml(missing=True))


def test_the_library_is_closed() -> None:
    recorded = RecordedNvml()
    Nvml(recorded).close()
    assert recorded.closed == 1
