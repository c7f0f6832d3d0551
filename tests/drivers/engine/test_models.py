"""What is kept for a model: settings that are taken or refused, predictions, and what loading it needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny_models import silent, source_of

from llmos.drivers.contract import LoadSettings
from llmos.drivers.engine import models
from llmos.drivers.engine.models import Entry
from llmos.drivers.engine.plan import CacheShape, Footprint
from llmos.drivers.ops.table import OpTable
from llmos.syscalls.errors import BadArgument, BadModel, BadState, NoDeviceMemory, NotSupported


def entry(llama: Path, weights: int = 1000, **settings: Any) -> Entry:
    footprint = Footprint(weights, CacheShape(0, ((10, None),)), 7, 1_000_000)
    return Entry("m", source_of(llama), LoadSettings(**settings), footprint, 128)


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"kv_dtype": "float8"}, NotSupported), ({"rung": "Z"}, BadArgument),
    ],
)  # fmt: skip
def test_settings_that_this_runner_has_not_are_refused(
    settings: dict[str, Any], error: type[NotSupported | BadArgument]
) -> None:
    with pytest.raises(error):
        models.check_settings(LoadSettings(**settings))


def test_settings_that_change_nothing_are_taken() -> None:
    models.check_settings(LoadSettings(rung="G", dtype="float32", kv_dtype="float32"))
    models.check_settings(LoadSettings())
    for kept in ("int8", "fp8"):
        models.check_settings(LoadSettings(kv_dtype=kept))


def test_a_rung_that_does_not_serve_the_model_is_refused(llama: Path, ops: OpTable) -> None:
    with pytest.raises(NotSupported, match="rung F"):
        models.reside(entry(llama, rung="F"), ops, 512, silent)


def test_weights_that_cannot_fit_are_refused_before_they_are_read(llama: Path, ops: OpTable) -> None:
    with pytest.raises(NoDeviceMemory) as error:
        models.reside(entry(llama, weights=1 << 60), ops, 512, silent)
    assert error.value.needed == 1 << 60 > error.value.free > 0


def test_a_configuration_that_builds_no_model_cannot_be_planned(llama: Path, tmp_path: Path) -> None:
    folder = tmp_path / "odd"
    folder.mkdir()
    for path in llama.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    text = (folder / "config.json").read_text()
    (folder / "config.json").write_text(text.replace('"hidden_act": "silu"', '"hidden_act": "no_such_function"'))
    with pytest.raises(BadModel) as error:
        models.plan_model(source_of(folder), LoadSettings())
    assert error.value.file == "config.json"


def test_a_sleeping_model_says_so(llama: Path) -> None:
    asleep = entry(llama)
    with pytest.raises(BadState) as error:
        asleep.awake()
    assert error.value.state == "asleep"
    assert [(row.predicted, row.allocator) for row in asleep.rows()] == [(1000, 0), (1280, 0), (7, 0)]
