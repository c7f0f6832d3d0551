"""One module for several runners: set to what each needs, and only then."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_models import silent, source_of

from llmos.drivers.contract import LoadSettings
from llmos.drivers.engine import attention, loader
from llmos.drivers.engine.shared import SharedModule


def test_it_is_set_when_that_changes_and_not_else(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = loader.load(source_of(llama), LoadSettings(), silent).module
    shared, plain, calls = SharedModule(module), module.config._attn_implementation, []
    set_to = module.set_attn_implementation
    monkeypatch.setattr(module, "set_attn_implementation", lambda name: (calls.append(name), set_to(name)))
    for name in ("", attention.NAME, attention.NAME, "", ""):
        assert shared.use(attention=name) is module
        assert module.config._attn_implementation == (name or plain)
    assert calls == [attention.NAME, plain]


def test_what_attends_in_a_way_of_its_own_keeps_that_on_pages(llama: Path) -> None:
    module = loader.load(source_of(llama), LoadSettings(), silent).module
    shared, plain = SharedModule(module), module.config._attn_implementation
    shared.own_attention = True
    shared.use(attention=attention.NAME)
    assert module.config._attn_implementation == plain
