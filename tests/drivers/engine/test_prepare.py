"""A model with faster parts, or the one of its files when those change what it answers."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from typing import Any

import pytest
from tiny_models import silent, source_of

from llmos.drivers.contract import LoadSettings
from llmos.drivers.engine import loader, prepare
from llmos.drivers.ops.table import OpTable


def test_a_causal_model_comes_with_its_trial(ops: OpTable, llama: Path) -> None:
    bundle, trial = prepare.prepared(source_of(llama), LoadSettings(), ops, silent)
    assert trial is not None and trial.unchanged() and bundle.about.causal


def test_others_come_as_they_are(ops: OpTable, bert: Path) -> None:
    bundle, trial = prepare.prepared(source_of(bert), LoadSettings(), ops, silent)
    assert trial is None and not bundle.about.causal


def test_what_answers_differently_is_dropped_before_it_is_loaded_again(
    ops: OpTable, llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, alive, spoilt = loader.load, [], []

    def load(*given: Any) -> Any:
        gc.collect()
        alive.append(sum(each() is not None for each in spoilt))
        bundle = real(*given)
        spoilt.append(weakref.ref(bundle.module))
        return bundle

    monkeypatch.setattr(prepare.loader, "load", load)
    monkeypatch.setattr(prepare, "operate", lambda module, _ops: module.lm_head.weight.mul_(2))
    _, trial = prepare.prepared(source_of(llama), LoadSettings(), ops, silent)
    assert alive == [0, 0] and trial is not None and trial.unchanged()
