"""The rules of advice: when each is given, with which figures, and when it is not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from llmos.kernel.advice.advisor import (
    NARROW, QUANT, DeviceFacts, Facts, ModelFacts, OwnerFacts, Planned, Plans, Wish, advise, wishes,
)  # fmt: skip
from llmos.syscalls.types import Advice

GIB = 1 << 30


def _model(name: str, **given: Any) -> ModelFacts:
    facts = {"id": f"m-{name}", "name": name, "path": f"/models/{name}", "device": "cpu0", "weights": GIB, "bytes": GIB}
    return ModelFacts(**{**facts, **given})


def _device(name: str = "cpu0", **given: Any) -> DeviceFacts:
    return DeviceFacts(**{"name": name, "total": 4 * GIB, "free": GIB, "rank": 1, **given})


def _facts(*models: ModelFacts, devices: Sequence[DeviceFacts] = (), owners: Sequence[OwnerFacts] = ()) -> Facts:
    return Facts(window_s=900, models=models, devices=devices or [_device()], owners=owners)


def _one(facts: Facts, plans: Plans | None = None) -> Advice:
    (advice,) = advise(facts, plans or {})
    return advice


GOING = {"evicted": 3, "reload_s": 2.0, "requests": 9}


def test_a_quiet_system_is_left_alone() -> None:
    assert advise(_facts(_model("fox", requests=10**6)), {}) == [] and wishes(_facts(_model("fox"))) == []
    assert advise(Facts(window_s=900), {}) == []


def test_pin_the_most_used_of_those_that_come_and_go() -> None:
    advice = _one(_facts(_model("owl", **{**GOING, "requests": 3}), _model("fox", **GOING), _model("elk")))
    assert (advice.code, advice.about, advice.name, advice.action) == ("pin", "m-fox", "fox", "llmos pin fox")
    assert advice.evidence == {"evictions": 3, "reload_s": 2.0, "requests": 9}
    assert advice.gain == {"evictions": -3, "seconds": -6.0} and "3 times in the last 15 minutes" in advice.text


@pytest.mark.parametrize(
    "models",
    [
        [_model("fox", **{**GOING, "evicted": 1})],
        [_model("fox", **GOING, pinned=True)],
        [_model("fox", **{**GOING, "reload_s": 0.0})],
        [_model("fox", **GOING, device="elsewhere")],
        [_model("fox", **GOING, bytes=2 * GIB), _model("owl", bytes=3 * GIB)],
        [_model("fox", **GOING), _model("owl", pinned=True, bytes=3 * GIB), _model("elk")],
    ],
)
def test_nothing_is_pinned_in_vain(models: list[ModelFacts]) -> None:
    assert advise(_facts(*models), {}) == []


def test_quantize_what_comes_and_goes_with_the_planned_bytes() -> None:
    fox = _model("fox", **GOING, pinned=True)
    (wish,) = wishes(_facts(fox))
    assert wish == Wish("m-fox", (("quant", QUANT),))
    advice = _one(_facts(fox), {wish: Planned(weights=GIB // 2, kv=0)})
    assert (advice.code, advice.gain) == ("quantize", {"weights_bytes": GIB // 2 - GIB})
    assert advice.action == "llmos load /models/fox --device cpu0 --name fox --replace --quant w8"
    assert advice.evidence["evictions"] == 3 and "had to leave cpu0 3 times" in advice.text
    assert advise(_facts(fox), {wish: Planned(weights=int(0.9 * GIB), kv=0)}) == [], "too little is won"
    assert wishes(_facts(_model("fox", **GOING, quantized=True))) == []
    assert wishes(_facts(_model("fox", **GOING, base="m-owl"))) == wishes(_facts(_model("x", **GOING, weights=0))) == []


def test_quantize_the_largest_model_of_a_device_that_refuses() -> None:
    facts = _facts(_model("fox"), _model("owl", weights=2 * GIB), devices=[_device(refused=2)])
    (wish,) = wishes(facts)
    assert wish.model == "m-owl"
    advice = _one(facts, {wish: Planned(GIB, 0)})
    assert advice.evidence["refused"] == 2 and "cpu0 refused 2 times" in advice.text
    assert "takes 1.0 GiB of weights instead of 2.0 GiB" in advice.text
    owl = _model("owl", weights=2 * GIB)
    enough, too_little = (_facts(owl, devices=[_device(refused=2, short=short)]) for short in (GIB, GIB + 1))
    assert advise(enough, {wish: Planned(GIB, 0)}) and not advise(too_little, {wish: Planned(GIB, 0)})
    assert not wishes(_facts(owl, devices=[_device(refused=2, short=2 * GIB + 1)])), "not even without any weights"


def test_more_keys_and_values_for_a_model_whose_requests_wait_for_pages() -> None:
    full = {"kv_usage": 0.95, "waiting": 2, "kv": 1000, "context": 4096}
    short = _model("fox", **full, max_context=1024)
    (wish,) = wishes(_facts(short))
    assert wish.options == (("max_context", 2048),)
    advice = _one(_facts(short), {wish: Planned(GIB, 2000)})
    assert advice.code == "more_kv" and advice.gain == {"kv_bytes": 1000} and "95 %" in advice.text
    assert advice.action.endswith("--replace --max-context 2048")
    assert advise(_facts(short, devices=[_device(free=999)]), {wish: Planned(GIB, 2000)}) == []
    (wish,) = wishes(_facts(_model("fox", **full, max_context=3000)))
    assert wish.options == (("max_context", 4096),)
    (wish,) = wishes(_facts(_model("fox", **full)))
    assert wish.options == (("kv_dtype", NARROW),)
    advice = _one(_facts(_model("fox", **full)), {wish: Planned(GIB, 500)})
    assert advice.gain == {"kv_bytes": -500} and "each token takes half" in advice.text
    for none in ({"kv_usage": 0.5}, {"waiting": 0}, {"kv": 0}, {"kv_dtype": "fp8"}):
        assert wishes(_facts(_model("fox", **{**full, **none}))) == []


def test_another_device_for_the_longest_queue() -> None:
    busy, idle = _device("cuda0", busy=0.9, rank=0), _device("cuda1", busy=0.1, rank=0, free=2 * GIB)
    models = [_model("fox", device="cuda0", waiting=5), _model("owl", device="cuda0", waiting=4)]
    advice = _one(_facts(*models, devices=[busy, idle, _device()]))
    assert (advice.code, advice.name) == ("other_device", "fox") and "--device cuda1" in advice.action
    assert advice.evidence == {"waiting": 5, "busy": 0.9, "busy_there": 0.1, "free_bytes": 2 * GIB}
    assert advice.gain == {"busy": pytest.approx(-0.8)}
    for other in (_device("cpu0"), _device("cuda1", rank=0, busy=0.5), _device("cuda1", rank=0, free=5)):
        assert advise(_facts(*models, devices=[busy, other]), {}) == []
    assert advise(_facts(_model("fox", device="cuda0", waiting=3), devices=[busy, idle]), {}) == []


def test_raise_a_quota_while_the_devices_have_time() -> None:
    owner = OwnerFacts(owner="uid:1001", what="tokens_per_minute", limit=100, refused=10, answered=20)
    advice = _one(_facts(owners=[owner]))
    assert advice.code == "raise_quota" and advice.gain == {"refused": -10, "limit": 150}
    assert "10 of the 30 requests of uid:1001" in advice.text and "tokens_per_minute = 150" in advice.action
    assert advise(_facts(owners=[owner], devices=[_device(busy=0.6)]), {}) == []
    assert advise(Facts(window_s=900, owners=[owner]), {}) == []
    for what in ({"refused": 4}, {"limit": 0}):
        fewer = OwnerFacts(**{"owner": "u", "what": "w", "limit": 9, "refused": 9, "answered": 0, **what})
        assert advise(_facts(owners=[fewer]), {}) == []
    none = OwnerFacts(owner="u", what="w", limit=9, refused=9, answered=0)
    assert _one(_facts(owners=[none])).gain["limit"] == 81


def test_merge_an_adapter_that_is_asked_instead_of_its_base() -> None:
    base = _model("fox", requests=2, tokens_per_s=30.0)
    adapter = _model("tone", base="m-fox", requests=38, bytes=500, tokens_per_s=20.0)
    advice = _one(_facts(base, adapter))
    assert (advice.code, advice.about) == ("merge_adapter", "m-tone") and "38 of 40 requests" in advice.text
    assert advice.gain == {"bytes": -500, "tokens_per_s": 10.0} and "30.0 tokens/s instead of 20.0" in advice.text
    assert advice.action == "llmos merge /models/fox /models/tone /models/fox-tone --method adapter"
    advice = _one(_facts(replace(base, path="file:/srv/foxes"), adapter))
    assert advice.action == "llmos merge file:/srv/foxes /models/tone /models/fox-tone --method adapter"
    unmeasured = _model("tone", base="m-fox", requests=38, bytes=500)
    assert _one(_facts(base, unmeasured)).gain == {"bytes": -500}
    for models in (
        [base, adapter, _model("other", base="m-fox")],
        [base, _model("tone", base="m-fox", requests=19)],
        [_model("fox", requests=5), adapter],
        [adapter],
    ):
        assert advise(_facts(*models), {}) == []


def test_take_off_the_option_that_keeps_a_model_on_a_lower_rung() -> None:
    asked = _model("fox", rung="G", asked_rung="G", waiting=4, slots=1)
    advice = _one(_facts(asked))
    assert advice.code == "rung" and advice.evidence == {"waiting": 4, "slots": 1} and "--rung" not in advice.action
    for model in (_model("fox", rung="G", waiting=9), _model("fox", rung="G", asked_rung="G", waiting=3)):
        assert advise(_facts(model), {}) == []
