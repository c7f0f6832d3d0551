"""Advice followed on the CPU with real models: what it claims is what is measured afterwards.

What is seen (evictions, full pages, requests) is given to the rules as figures; what an option would take is planned by
the real driver, the advice is applied to a real model, and the bytes it then holds are compared with the claim.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from lora_folders import TARGETS, base_of, save_adapter
from tiny_models import build

from llmos.kernel.advice.advisor import DeviceFacts, Facts, ModelFacts, Planned, Wish, advise, wishes
from llmos.kernel.placing import rank
from llmos.syscalls.types import Advice, LedgerRow
from llmos.userland import boot

pytestmark = pytest.mark.slow
GIB = 1 << 30


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a model whose weights are mostly those of linear layers, and an adapter for it."""
    home = tmp_path_factory.mktemp("home")
    wide = {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 4, "max_position_embeddings": 2048}
    build(home / "models/fox", "llama", **wide)
    save_adapter(base_of(home / "models/fox"), home / "models/tone", **TARGETS["llama"])
    return home


@pytest.fixture(scope="module")
def system(shelf: Path) -> Iterator[Any]:
    with boot(drivers=["cpu0", "models"], home=shelf) as system:
        yield system


@pytest.fixture(autouse=True)
def empty(system: Any) -> Iterator[None]:
    yield
    for info in system.models():
        system.model(info.id).unload(force=True)


def _held(system: Any, model: Any, what: str = "") -> int:
    """Bytes that are really there, as the engine counts its storages and tells about once a second."""
    owner = model.stat().fields["weights"]
    while True:
        rows = msgspec.json.decode(system.read("/sys/memory"), type=list[LedgerRow])
        mine = [row for row in rows if row.owner == owner]
        if any(row.what == "weights" and row.allocator for row in mine):
            return sum(row.allocator for row in mine if what in ("", row.what))
        time.sleep(0.05)


def _facts(system: Any, model: Any, **seen: Any) -> ModelFacts:
    info = model.info
    return ModelFacts(
        id=info.id, name=info.name, path=info.path, device="cpu0", weights=_held(system, model, "weights"),
        kv=_held(system, model, "kv"), bytes=_held(system, model), context=2048, **seen,
    )  # fmt: skip


def _advice(system: Any, *models: ModelFacts) -> Advice:
    """The one advice, with what it wishes to know planned by the driver."""
    device = DeviceFacts(name="cpu0", total=64 * GIB, free=32 * GIB, rank=1)
    facts = Facts(window_s=900, models=models, devices=[device])
    plans = {wish: _planned(system, wish, facts) for wish in wishes(facts)}
    (advice,) = advise(facts, plans)
    return advice


def _planned(system: Any, wish: Wish, facts: Facts) -> Planned:
    model = next(each for each in facts.models if each.id == wish.model)
    rows = system.plan_model(model.path, device="cpu0", **dict(wish.options)).plan.rows
    sums = {what: sum(row.predicted for row in rows if row.what == what) for what in ("weights", "kv")}
    return Planned(sums["weights"], sums["kv"])


def test_quantizing_frees_the_bytes_it_claims(system: Any) -> None:
    model = system.load_model("/models/fox", device="cpu0")
    advice = _advice(system, _facts(system, model, evicted=3, pinned=True))
    assert advice.code == "quantize" and advice.action.endswith("--quant w8")
    before = _held(system, model, "weights")
    narrow = system.load_model("/models/fox", device="cpu0", name="fox", replace=True, quant="w8")
    freed = before - _held(system, narrow, "weights")
    claimed = -advice.gain["weights_bytes"]
    assert freed == pytest.approx(claimed, rel=0.05) and freed > 0.4 * before


def test_more_keys_and_values_are_as_many_bytes_and_tokens_as_it_claims(system: Any) -> None:
    model = system.load_model("/models/fox", device="cpu0", max_context=512)
    advice = _advice(system, _facts(system, model, kv_usage=0.95, waiting=3, max_context=512))
    assert advice.code == "more_kv" and advice.action.endswith("--max-context 1024")
    before = _held(system, model, "kv")
    wider = system.load_model("/models/fox", device="cpu0", name="fox", replace=True, max_context=1024)
    grown = _held(system, wider, "kv") - before
    assert grown == pytest.approx(advice.gain["kv_bytes"], rel=0.05) and grown > 0
    assert wider.info.context == 1024, "and a request may be twice as long"


def test_merging_an_adapter_frees_its_bytes(system: Any) -> None:
    base = system.load_model("/models/fox", device="cpu0")
    adapter = system.load_model("/models/tone", base=base, adapter=True)
    seen = _facts(system, adapter, base=base.info.id, requests=30)
    advice = _advice(system, _facts(system, base, requests=1), seen)
    assert advice.code == "merge_adapter" and "--method adapter" in advice.action
    both = _held(system, base) + _held(system, adapter)
    prompt, options = list(range(40, 60)), {"max_tokens": 8, "temperature": 0, "ignore_eos": True}
    wanted = adapter.infer(prompt, **options).tokens
    task = system.transform(
        ["/models/fox", "/models/tone"], "/models/both", {"kind": "merge", "method": "adapter"}
    )
    assert task.wait().state == "done"
    adapter.unload()
    base.unload()
    merged = system.load_model("/models/both", device="cpu0")
    assert merged.infer(prompt, **options).tokens == wanted, "the same model"
    assert _held(system, merged) - both == pytest.approx(advice.gain["bytes"], rel=0.05)


# ---- what is seen by the kernel itself


def _asked(model: Any, count: int) -> list[Any]:
    """So many long requests that have all come to rest: they run, or wait for a slot."""
    options = {"max_tokens": 1500, "temperature": 0, "ignore_eos": True}
    asked = [model.infer_stream(list(range(40, 50 + number)), **options) for number in range(count)]
    while (fields := model.stat().fields)["running"] < min(count, fields["slots"]):
        time.sleep(0.05)
    assert fields["running"] + fields["waiting"] == count
    return asked


def test_without_the_rung_that_was_asked_for_as_many_fewer_wait_as_it_claims(system: Any) -> None:
    slow = system.load_model("/models/fox", device="cpu0", rung="G")
    asked = _asked(slow, 6)
    before = slow.stat().fields["waiting"]
    (advice,) = [each for each in system.advice() if each.code == "rung"]
    assert advice.evidence["waiting"] == before > 0 and "--rung" not in advice.action
    for each in asked:
        each.cancel()
    fast = system.load_model("/models/fox", device="cpu0", name="fox", replace=True)
    asked = _asked(fast, 6)
    assert fast.stat().fields["waiting"] - before == advice.gain["waiting"]
    for each in asked:
        each.cancel()


SECOND = """
from llmos.drivers.devices.cpu import CpuDevice
from llmos.drivers.hookspecs import hookimpl

@hookimpl
def register_devices(register):
    register("cpu1", CpuDevice)
"""


@pytest.fixture
def pair(shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A machine with two devices that are as good as each other: a package announces the CPU a second time."""
    info = tmp_path / "second-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: second\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[llmos.devices]\ncpu1 = second_cpu\n")
    (tmp_path / "second_cpu.py").write_text(SECOND)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with boot(drivers=["cpu0", "cpu1", "models"], home=shelf) as system:
        yield system


def _computed(system: Any) -> dict[str, float]:
    """Seconds that each device has computed."""
    spent = {"cpu0": 0.0, "cpu1": 0.0}
    for metric in system.metrics("llmos_device_nanoseconds").values():
        spent[metric.labels["device"]] += metric.value / 1e9
    return spent


def _shares(system: Any, model: Any) -> dict[str, float]:
    """Of the time in which either device computes for some requests, the share of each."""
    before = _computed(system)
    for _ in range(3):
        model.infer(list(range(40, 60)), max_tokens=16, ignore_eos=True)
    while sum(_computed(system).values()) == sum(before.values()):
        time.sleep(0.05)
    spent = {name: seconds - before[name] for name, seconds in _computed(system).items()}
    return {name: seconds / sum(spent.values()) for name, seconds in spent.items()}


def test_the_other_device_takes_the_share_of_time_that_it_claims(pair: Any) -> None:
    model = pair.load_model("/models/fox", device="cpu0")
    seen = _shares(pair, model)
    devices = [
        DeviceFacts(name=name, total=64 * GIB, free=32 * GIB, rank=rank(name), busy=busy) for name, busy in seen.items()
    ]
    (advice,) = advise(Facts(window_s=900, models=[_facts(pair, model, waiting=4)], devices=devices), {})
    assert advice.code == "other_device" and advice.action == (
        "llmos load /models/fox --device cpu1 --name fox --replace"
    )
    moved = pair.load_model("/models/fox", device="cpu1", name="fox", replace=True)
    assert [(each.name, each.fields["device"]) for each in pair.models()] == [("fox", "cpu1")]
    after = _shares(pair, moved)
    assert after["cpu0"] - seen["cpu0"] == pytest.approx(advice.gain["busy"]) == -1
