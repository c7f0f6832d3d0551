"""The trial at load finds what pages do not serve, whatever it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import silent, source_of

from llmos.drivers.contract import LoadSettings
from llmos.drivers.engine import attention, loader, paged
from llmos.drivers.engine.attention import Refused
from llmos.drivers.engine.shared import SharedModule
from llmos.drivers.engine.surgery.operate import operate
from llmos.drivers.engine.verify import Trial, forward_trial
from llmos.drivers.ops.table import OpTable

DTYPES = ["float32", "bfloat16"]


@pytest.fixture(params=DTYPES)
def prepared(request: pytest.FixtureRequest, llama: Path) -> tuple[Any, SharedModule, Trial]:
    bundle = loader.load(source_of(llama), LoadSettings(dtype=request.param), silent)
    shared = SharedModule(bundle.module)
    return bundle, shared, Trial(bundle)


def fit(shared: SharedModule, trial: Trial, ops: OpTable) -> None:
    module = shared.use(attention=attention.NAME)
    trial.fit_pages(module, paged.layers_of(module, 100), ops)


def changed(ops: OpTable, op: str, change: Callable[..., Any]) -> OpTable:
    """The reference ops, one of them put through `change(reference, ...)`."""
    table = OpTable()
    for name, named in ops._implementations.items():
        call = named["torch"].call
        wrong = (lambda *a, call=call, **k: change(call, *a, **k)) if name == op else call
        table.register(name, "torch", wrong, lambda spec: (True, ""))
    return table


def test_a_sound_model_passes(prepared: Any, ops: OpTable) -> None:
    bundle, shared, trial = prepared
    operate(bundle.module, ops)
    assert trial.unchanged()
    fit(shared, trial, ops)


def lost(attend: Any, q: Any, k: Any, v: Any, table: Any, starts: Any, lengths: Any, **options: Any) -> Any:
    """Attention that does not see what was computed in earlier steps."""
    return attend(q, k, v, table, starts, starts[1:] - starts[:-1], **options)


def shifted(write: Any, k: Any, v: Any, k_pages: Any, v_pages: Any, slots: Any) -> None:
    write(k, v, k_pages, v_pages, slots.roll(1))


@pytest.mark.parametrize(("op", "change"), [("paged_attention", lost), ("write_kv", shifted)])
def test_pages_that_lose_tokens_are_noticed(prepared: Any, ops: OpTable, op: str, change: Any) -> None:
    _bundle, shared, trial = prepared
    with pytest.raises(Refused, match="differ"):
        fit(shared, trial, changed(ops, op, change))


def test_a_state_beside_the_pages_is_noticed(prepared: Any, ops: OpTable) -> None:
    bundle, shared, trial = prepared
    carried: list[torch.Tensor] = []

    def remember(_module: Any, given: tuple[torch.Tensor], out: torch.Tensor) -> torch.Tensor:
        carried.append(out[:, -1:])
        return out + 20 * len(carried) * carried[0]

    bundle.module.model.layers[0].register_forward_hook(remember)
    with pytest.raises(Refused, match="differ"):
        fit(shared, trial, ops)


def test_a_changed_model_is_noticed(prepared: Any) -> None:
    bundle, _shared, trial = prepared
    with torch.inference_mode():
        bundle.module.model.layers[0].mlp.down_proj.weight.neg_()
    assert not trial.unchanged()


def test_what_fails_on_pages_is_told(prepared: Any, ops: OpTable) -> None:
    def broken(*given: Any, **options: Any) -> Any:
        raise RuntimeError("no such luck")

    _bundle, shared, trial = prepared
    with pytest.raises(Refused, match="no such luck"):
        fit(shared, trial, changed(ops, "paged_attention", broken))
    shared.use()
    assert trial.unchanged()


@pytest.mark.parametrize("dtype", DTYPES)
def test_an_encoder_answers_the_same_with_faster_parts_and_a_spoilt_part_is_noticed(
    bert: Path, dtype: str, ops: OpTable
) -> None:
    bundle = loader.load(source_of(bert), LoadSettings(dtype=dtype), silent)
    trial = forward_trial(bundle)
    assert trial is not None
    report = operate(bundle.module, ops)
    assert report.merged == 2 and report.packed >= 6 and trial.unchanged()
    with torch.no_grad():
        bundle.module.encoder.layer[1].output.dense.packed.packed.mul_(100)
    assert not trial.unchanged()


def test_a_model_that_is_not_asked_by_tokens_alone_has_no_trial(bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = loader.load(source_of(bert), LoadSettings(), silent)
    monkeypatch.setattr(bundle.module, "forward", lambda pixel_values, **more: None)
    assert forward_trial(bundle) is None


def narrow_trial(llama: Path, kept: str) -> tuple[SharedModule, Trial]:
    bundle = loader.load(source_of(llama), LoadSettings(dtype="float32", kv_dtype=kept), silent)
    return SharedModule(bundle.module), Trial(bundle)


def unscaled(attend: Any, *args: Any, key_scale: Any = None, **options: Any) -> Any:
    """Attention that takes all scales of keys for 1."""
    return attend(*args, key_scale=None if key_scale is None else torch.ones_like(key_scale), **options)


def louder(attend: Any, *args: Any, value_scale: Any = None, **options: Any) -> Any:
    """Attention with scales of values three times as large."""
    return attend(*args, value_scale=None if value_scale is None else 3 * value_scale, **options)


@pytest.mark.parametrize("kept", ["int8", "fp8"])
def test_pages_of_8_bits_are_tried_on_their_own(llama: Path, ops: OpTable, kept: str) -> None:
    shared, trial = narrow_trial(llama, kept)
    fit(shared, trial, ops)
    for wrong in (unscaled, louder):
        shared, trial = narrow_trial(llama, kept)
        with pytest.raises(Refused, match=r"differ on pages of (int8|float8_e4m3fn)"):
            fit(shared, trial, changed(ops, "paged_attention", wrong))
