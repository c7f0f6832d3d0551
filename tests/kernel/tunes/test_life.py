"""What `test_service` does not reach of the life of a task: moments between two messages."""

from __future__ import annotations

from run_records import run
from scripted import Inside

from llmos.kernel.objects import TaskObject
from llmos.kernel.tunes.life import Life
from llmos.kernel.tunes.tuned import Tuned
from llmos.syscalls.types import Kind


def tuned(kernel: Inside) -> Tuned:
    record = run()
    task = TaskObject(id=record.id, kind=Kind.TASK, name="lora", argv=[])
    return Tuned(record, task, kernel.kernel.runner.future())


def test_a_job_whose_host_has_just_ended_rests_without_it(kernel: Inside) -> None:
    one = tuned(kernel)
    Life(kernel.kernel).rest(one)
    assert one.rests and kernel.null.calls == []


def test_how_far_a_job_is_before_its_steps_are_known(kernel: Inside) -> None:
    one = tuned(kernel)
    Life(kernel.kernel).tell(one, "start")
    assert (one.task.progress["fraction"], one.task.progress["stage"]) == (0.0, "start")


def test_the_folder_of_a_task_goes_with_all_that_is_in_it(kernel: Inside) -> None:
    life, one = Life(kernel.kernel), tuned(kernel)
    (life.folder(one.run) / "keep").mkdir(parents=True)
    life.forget(one.run.id)
    assert not life.folder(one.run).exists()
    life.forget("none")
