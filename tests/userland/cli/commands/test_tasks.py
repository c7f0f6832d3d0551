"""wait, pause, resume, priority, cancel: programs that a real kernel runs."""

from __future__ import annotations

from typing import Any


def test_the_life_of_a_task(llmos: Any, system: Any) -> None:
    task = system.spawn(["/bin/sleep", "60"])
    name = task.info.id
    assert name in llmos("tasks").out
    assert "is paused" in llmos(f"pause {name}").out
    assert "runs again" in llmos(f"resume {name}").out
    assert llmos(f"priority {name} -5 --json").json["id"] == name
    ran = llmos(f"wait {name} --timeout 0.01")
    assert ran.status == 1 and "deadline" in ran.err
    assert llmos(f"cancel {name} --grace 0").status == 0
    assert llmos(f"wait {name}").status == 1


def test_waiting_tells_how_it_ended(llmos: Any, system: Any) -> None:
    done, failed = (system.spawn(["/bin/sh", "-c", f"echo hello; exit {n}"]).info.id for n in (0, 4))
    ran = llmos(f"wait {done}")
    assert ran.status == 0 and "exit status 0" in ran.out
    assert llmos(f"wait {failed} --json").json["exit"] == 4


def test_what_is_no_task_may_be_a_request(llmos: Any) -> None:
    ran = llmos("cancel r-1")
    assert ran.status == 1 and "no request 'r-1'" in ran.err
    assert "no task is called" in llmos("wait t-1").err
