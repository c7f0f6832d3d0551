"""What is told is told once, and a checkpoint that is asked for is written once."""

from __future__ import annotations

from llmos.drivers.contract import TuneProgressEvent
from llmos.drivers.tuning.telling import Telling, figures_of
from llmos.drivers.tuning.training import Report


def test_events_are_taken_in_order_and_once() -> None:
    telling = Telling()
    events = [TuneProgressEvent("t", step, 2) for step in (1, 2)]
    telling._events.extend(events)
    assert telling.told() == events and telling.told() == []


def test_a_checkpoint_is_asked_for_once_however_often() -> None:
    telling = Telling()
    assert not telling._taken()
    telling.checkpoint()
    telling.checkpoint()
    assert telling._taken() and not telling._taken()


def test_figures_have_the_names_that_conditions_use() -> None:
    report = Report(2, 10, 1.0, "done", {"loss": 2.0}, {"loss": 1.0, "accuracy": 0.5}, 2, 0)
    assert figures_of(report) == {"eval_loss": 1.0, "eval_accuracy": 0.5, "eval_loss_before": 2.0}
