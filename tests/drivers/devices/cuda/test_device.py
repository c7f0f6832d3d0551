"""The GPU as a device, as far as a machine without one shows it: what is found, what is refused, and how it fails."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from late_lanes import LateLanes
from recorded_nvml import TOTAL, UUIDS, RecordedNvml
from simulated_cuda import DEVICE, SimulatedCuda
from tiny_models import PROMPT, ask, build, choice, finish, silent, source_of, word_piece

from llmos.drivers.contract import LoadSettings
from llmos.drivers.devices.cuda.device import NAMES, CudaDevice, register_devices
from llmos.drivers.devices.cuda.nvml import Nvml
from llmos.drivers.devices.cuda.place import CudaPlace
from llmos.drivers.engine.capture import Capture, Eager
from llmos.drivers.engine.memory import free_bytes
from llmos.drivers.engine.place import Place
from llmos.syscalls.errors import BadArgument, BadState, DeviceFault, NotFound, NotSupported

LOST = "CUDA error: an illegal memory access was encountered"


@pytest.fixture(autouse=True)
def visible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


class Simulated(CudaPlace):
    """A GPU that is simulated; steps are repeated as they are."""

    def free_bytes(self) -> int:
        return free_bytes()

    def collect(self) -> None:
        """Nothing is held."""

    def capture(self, what: str) -> Capture:
        return Eager(self.device)


class OnCpu(CudaDevice):
    """A GPU device whose GPU is simulated; `broken` is what its op `silu_mul` raises."""

    broken: Exception | None = None

    def _register_own(self) -> None:
        reference = self.ops.named("silu_mul", "torch").call

        def silu_mul(x: Any) -> Any:
            if self.broken is not None:
                raise self.broken
            return reference(x)

        self.ops.register("silu_mul", "breaking", silu_mul, lambda spec: (True, ""))

    def _place(self, threads: int, config: Mapping[str, Any]) -> Place:
        return Simulated(DEVICE, 0.01, LateLanes())

    def _reserved(self) -> int:
        return 1 << 20


@pytest.fixture
def device() -> Iterator[OnCpu]:
    made = OnCpu("cuda1", lambda: Nvml(RecordedNvml()))
    with SimulatedCuda():
        made.start("cuda1", 1, {})
        yield made
        made.stop()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("models") / "llama")


def test_every_number_is_a_device() -> None:
    made: dict[str, Any] = {}
    register_devices(made.__setitem__)
    assert tuple(made) == NAMES == tuple(f"cuda{number}" for number in range(8))


def test_the_process_sees_its_gpu_alone(device: OnCpu, monkeypatch: pytest.MonkeyPatch) -> None:
    assert os.environ["CUDA_VISIBLE_DEVICES"] == UUIDS[1]
    facts = device.facts()
    assert (facts.name, facts.kind, facts.memory_bytes) == ("cuda1", "cuda", TOTAL)
    assert facts.description == "NVIDIA H100 80GB HBM3" and facts.features["temperature_c"] == 41
    assert facts.foreign_bytes == (3 << 30) - (1 << 20)


@pytest.mark.parametrize(("name", "wanted"), [("cuda2", None), ("cuda0", ""), ("cuda1", "1")])
def test_a_gpu_that_is_not_there_is_not_found(monkeypatch: pytest.MonkeyPatch, name: str, wanted: str | None) -> None:
    if wanted is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", wanted)
    with pytest.raises(NotFound, match="there is no GPU"):
        OnCpu(name, lambda: Nvml(RecordedNvml())).start(name, 1, {})


def test_a_torch_without_cuda_says_so() -> None:
    device = CudaDevice("cuda0", lambda: Nvml(RecordedNvml()))
    with pytest.raises(NotSupported, match="cannot use CUDA"):
        device.start("cuda0", 1, {})
    device.stop()


@pytest.mark.parametrize("share", [0, 1.5, "half", True])
def test_a_wrong_share_is_refused(share: object) -> None:
    with pytest.raises(BadArgument, match="kv_share"):
        OnCpu("cuda0", lambda: Nvml(RecordedNvml())).start("cuda0", 1, {"kv_share": share})


def test_before_it_starts_nothing_is_known() -> None:
    device = CudaDevice("cuda0", lambda: Nvml(RecordedNvml()))
    with pytest.raises(BadState):
        device.facts()
    device.stop()


@pytest.mark.slow
def test_a_model_sleeps_in_host_memory_and_wakes_as_it_was(device: OnCpu, folder: Path) -> None:
    loaded = device.load("m", source_of(folder), LoadSettings(), silent)
    before = choice(device, ask(PROMPT, max_tokens=8)).tokens
    rows = {row.what: row.allocator for row in loaded.rows}
    assert rows["weights"] > 0 and rows["kv"] > 0
    asleep = device.sleep("m")
    assert all(row.allocator == 0 for row in asleep.rows if not row.device)
    (host,) = (row for row in asleep.rows if row.device == "host")
    assert (host.what, host.allocator) == ("weights", rows["weights"])
    with pytest.raises(BadState, match="asleep"):
        device.submit(ask(PROMPT, max_tokens=8))
    awake = device.wake("m", silent)
    assert {row.what: row.allocator for row in awake.rows} == rows
    assert choice(device, ask(PROMPT, max_tokens=8)).tokens == before
    device.sleep("m")
    assert device.unload("m") == 0


def test_a_conversation_goes_on_after_a_sleep(device: OnCpu, folder: Path) -> None:
    device.load("m", source_of(folder), LoadSettings(), silent)
    device.open_context("c", "m", "", 0)
    first = choice(device, ask(PROMPT, context="c", max_tokens=4)).tokens
    device.sleep("m")
    device.wake("m", silent)
    again = choice(device, ask(PROMPT[:3], id="s", context="c", max_tokens=4)).tokens
    whole = [*PROMPT, *first, *PROMPT[:3]]
    assert choice(device, ask(whole, id="t", max_tokens=4)).tokens == again


def test_a_lost_context_is_a_fault_of_the_device(device: OnCpu, folder: Path) -> None:
    device.load("m", source_of(folder), LoadSettings(), silent)
    device.broken = RuntimeError(f"{LOST}\nCUDA kernel errors might be reported later")
    with pytest.raises(DeviceFault) as raised:
        finish(device, ask(PROMPT, max_tokens=8))
    assert raised.value.cause == LOST


def test_a_lost_context_that_failed_a_request_is_one_too(device: OnCpu, tmp_path: Path) -> None:
    shape = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = transformers.BertConfig(vocab_size=320, max_position_embeddings=80, pad_token_id=0, **shape)
    transformers.AutoModel.from_config(config).save_pretrained(tmp_path)
    word_piece().save_pretrained(tmp_path)
    device.load("m", source_of(tmp_path), LoadSettings(), silent)
    module = device._running()._entries["m"].awake().bundle.module

    def lose(*_given: object) -> None:
        raise ValueError(LOST)

    module.register_forward_pre_hook(lose)
    with pytest.raises(DeviceFault, match="illegal memory access"):
        finish(device, ask("the quick", task="feature-extraction"))


def test_memory_that_is_not_given_ends_a_request_alone(device: OnCpu, folder: Path) -> None:
    device.load("m", source_of(folder), LoadSettings(), silent)
    device.broken = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has ...")
    (event,) = finish(device, ask(PROMPT, max_tokens=8))["r"]
    assert "Tried" not in str(event.error) and "gave no memory" in str(event.error)  # type: ignore[union-attr]
    device.broken = None
    assert choice(device, ask(PROMPT, id="s", max_tokens=4)).tokens
