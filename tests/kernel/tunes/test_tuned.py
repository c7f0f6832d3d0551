"""Small facts about tuning tasks; the rest shows in `test_service`."""

from __future__ import annotations

import pytest
from run_records import run

from llmos.kernel.namespace import MountPoint
from llmos.kernel.tunes.tuned import class_of, manifest, place_of, sentence, sizes
from llmos.syscalls.errors import NotSupported
from llmos.syscalls.events import TuneEnded
from llmos.syscalls.types import LedgerRow, WorkClass


def test_tuning_is_never_interactive() -> None:
    asked = [WorkClass.INTERACTIVE, WorkClass.BATCH, WorkClass.BACKGROUND]
    assert [class_of(each) for each in asked] == ["background", "batch", "background"]


def test_places_are_of_stored_files() -> None:
    place = place_of(MountPoint("/models", "models", "x", "rw", "mt-1"), "/a", "/models/a/")
    assert (place.path, place.filesystem, place.source, place.inner) == ("/models/a", "models", "x", "/a")
    with pytest.raises(NotSupported):
        place_of(MountPoint("/sys", "kernel", "sys", "ro", "mt-2"), "/version", "/sys/version")


def test_rows_are_parted_by_whose_memory_they_take() -> None:
    rows = [
        LedgerRow(device="gpu0", what="tuning", owner="t", predicted=3),
        LedgerRow(device="gpu0", what="tuning", owner="t", predicted=4),
        LedgerRow(device="host", what="tuning", owner="t", predicted=5),
    ]  # fmt: skip
    assert sizes(rows) == ({"tuning": 7}, {"tuning": 5})


def test_a_manifest_says_how_it_was_made() -> None:
    one = run()
    one.values = {"loss": 0.5}
    made = manifest(one, TuneEnded(id="t", reason="done", manifest={"how": "finetune", "architecture": "Echo"}))
    assert made["architecture"] == "Echo" and "how" not in made and made["metrics"] == {"loss": 0.5}
    assert made["parents"][0]["how"] == "finetune" and made["parents"][0]["data_sha256"] == ""
    assert '"code":"1","data":""' in made["parents"][0]["recipe"]
    one.facts = {"data": {"digest": "ab12"}}
    assert '"data":"ab12"' in manifest(one, TuneEnded(id="t", reason="done"))["parents"][0]["recipe"]


def test_a_sentence_has_the_losses_that_are_known() -> None:
    one = run()
    one.version, one.step = "2", 9
    assert sentence(one) == "/models/tiny@2: 9 steps"
    one.values = {"eval_loss": 0.25, "loss": 0.5}
    assert sentence(one) == "/models/tiny@2: 9 steps, loss 0.5, eval loss 0.25"
