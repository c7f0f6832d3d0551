"""The model of a run, found again."""

from __future__ import annotations

import pytest
from run_records import run
from scripted import Inside, Program

from llmos.kernel.objects import ModelObject
from llmos.kernel.tunes.recall import recall
from llmos.kernel.tunes.runs import Run
from llmos.syscalls.errors import LlmosError, NotFound


def recalled(kernel: Inside, record: Run) -> ModelObject:
    found = kernel.kernel.runner.detached(recall(kernel.kernel, record.owner, record.base))
    kernel.settle()
    return found.result()


def test_a_model_that_is_loaded_is_joined(kernel: Inside, program: Program) -> None:
    program.load("tiny")
    (loaded,) = kernel.kernel.models.by_id.values()
    record = run()
    record.base.place.source = loaded.located.source
    assert recalled(kernel, record) is loaded and kernel.models.names() == ["locate", "locate", "release"]


def test_a_model_that_is_not_is_cold(kernel: Inside) -> None:
    model = recalled(kernel, run())
    assert (model.name, model.status, model.owner, model.path) == ("tiny", "cold", "0", "/models/tiny")


def test_a_device_or_model_that_is_gone(kernel: Inside) -> None:
    record = run()
    record.base.device = "gpu7"
    with pytest.raises(NotFound, match="gpu7"):
        recalled(kernel, record)
    kernel.models.answers["locate"] = NotFound("no model")
    with pytest.raises(LlmosError, match="no model"):
        recalled(kernel, run())
