"""Quotas at work: of users, tenants and programs, refused or waiting."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from scripted import MODEL_BYTES, Inside, Program, inference, inside

from llmos.kernel import config as configuration
from llmos.kernel.session import Peer
from llmos.syscalls.errors import Busy, Cancelled, OverQuota, TimedOut
from llmos.syscalls.events import Spent

UID = os.getuid()
OTHER = UID + 1


def policy(limits: str, more: str = "", top: str = "") -> str:
    return f"{top}\n[policy.uid.{UID}]\nlimits = {{ {limits} }}\n{more}"


def spent(kernel: Inside, request: str, seconds: float) -> None:
    kernel.null.event(
        Spent(work_class="interactive", tenant=str(UID), device_ns=int(seconds * 1e9), tokens=1, request=request)
    )


def running(kernel: Inside) -> list[str]:
    return [ticket.id for ticket in kernel.kernel.scheduler.running()]


def refused(program: Program, model: int) -> OverQuota:
    error = program.wait(program.start(model, "x")).error
    assert isinstance(error, OverQuota)
    return error


def test_requests_at_once_of_a_user_over_all_its_sessions(folder: Path) -> None:
    with inside(folder, policy("concurrent_requests = 1"), drivers="null0,models") as kernel:
        one, other = kernel.program(), kernel.program(program="another")
        model, same = one.load("tiny"), other.load("tiny")
        number = one.start(model, "x")
        error = refused(other, same)
        assert (error.what, error.limit) == ("concurrent_requests", 1) and error.retry_after_ms == 100
        (reason,) = [each for each in error.reasons if each["code"] == "quota.over"]
        assert reason["numbers"] == {"limit": 1, "used": 1, "retry_after_ms": 100, "who": f"user {UID}"}
        kernel.null.release("submit")
        assert one.wait(number).error is None
        number = other.start(same, "x")
        kernel.null.release("submit")
        assert other.wait(number).error is None


def test_requests_per_minute(folder: Path) -> None:
    with inside(folder, policy("requests_per_minute = 2"), drivers="null0,models") as kernel:
        program = kernel.program()
        model = program.load("tiny")
        for _ in range(2):
            number = program.start(model, "x")
            kernel.null.release("submit")
            program.wait(number)
        error = refused(program, model)
        assert error.what == "requests_per_minute" and 29_000 < error.retry_after_ms <= 30_000
        kernel.advance(30)
        number = program.start(model, "x")
        kernel.null.release("submit")
        assert program.wait(number).error is None


def test_device_seconds_per_day_of_long_requests(folder: Path) -> None:
    with inside(folder, policy("device_seconds_per_day = 60"), drivers="null0,models") as kernel:
        program = kernel.program()
        model = program.load("tiny")
        number = program.start(model, "x")
        (request,) = running(kernel)
        spent(kernel, request, 59)
        spent(kernel, "somebody's", 100)
        second = program.start(model, "y")
        spent(kernel, request, 31)
        error = refused(program, model)
        assert (error.what, error.limit) == ("device_seconds_per_day", 60)
        assert error.retry_after_ms == pytest.approx(30 / 60 * 86_400_000, rel=0.001)
        for each in (number, second):
            kernel.null.release("submit")
            program.wait(each)


def test_a_tenant_has_less_than_its_user_and_another_tenant_its_own(folder: Path) -> None:
    more = f"[policy.uid.{UID}.tenant.anna]\nlimits = {{ concurrent_requests = 1 }}\n"
    with inside(folder, policy("concurrent_requests = 3", more), drivers="null0,models") as kernel:
        anna, bert = kernel.program(tenant="anna"), kernel.program(tenant="bert")
        mine, his = anna.load("tiny"), bert.load("tiny")
        numbers = [anna.start(mine, "x")]
        assert f"tenant anna of user {UID} has 1 requests under way" in str(refused(anna, mine))
        others = [bert.start(his, "x") for _ in range(2)]
        assert f"user {UID} has 3 requests under way" in str(refused(bert, his))
        for program, waiting in ((anna, numbers), (bert, others)):
            for number in waiting:
                kernel.null.release("submit")
                program.wait(number)


def test_a_program_may_have_less(kernel: Inside, program: Program) -> None:
    model = program.load("tiny")
    program.control(program.handle, "limit", concurrent_requests=1)
    number = program.start(model, "x")
    assert f"program test of user {UID} has 1 requests under way" in str(refused(program, model))
    other = kernel.program(program="free")
    second = other.start(other.load("tiny"), "x")
    for each, of in ((number, program), (second, other)):
        kernel.null.release("submit")
        assert of.wait(each).error is None


def test_by_policy_requests_wait_in_order(folder: Path) -> None:
    with inside(folder, policy("concurrent_requests = 1", 'over_quota = "wait"\n'), drivers="null0,models") as kernel:
        program = kernel.program()
        model = program.load("tiny")
        numbers = [program.start(model, text) for text in ("a", "b", "c")]
        assert len(running(kernel)) == 1 and not any(program.done(number) for number in numbers)
        for number in numbers:
            assert len(running(kernel)) == 1
            kernel.null.release("submit")
            answer = program.wait(number)
            assert answer.error is None
        assert "quota.waits" in answer.reasons and not running(kernel)
        texts = [body["work"]["input"]["text"] for name, body in kernel.null.calls if name == "submit"]
        assert texts == ["a", "b", "c"]


def test_what_waits_for_a_rate_starts_when_it_allows_it(folder: Path) -> None:
    with inside(folder, policy("tokens_per_minute = 60", 'over_quota = "wait"\n'), drivers="null0,models") as kernel:
        program = kernel.program()
        model = program.load("tiny")
        number = program.start(model, "x")
        kernel.null.release("submit", inference(prompt=60, new=9))
        program.wait(number)
        first, second = program.start(model, "y"), program.start(model, "z")
        kernel.advance(9)
        assert not running(kernel)
        kernel.advance(1)
        assert len(running(kernel)) == 2
        for each in (first, second):
            kernel.null.release("submit", inference(prompt=0, new=0))
            assert program.wait(each).error is None


def test_what_waits_leaves_with_its_deadline_or_when_it_is_cancelled(folder: Path) -> None:
    with inside(folder, policy("concurrent_requests = 1", 'over_quota = "wait"\n'), drivers="null0,models") as kernel:
        program = kernel.program()
        model = program.load("tiny")
        number = program.start(model, "x")
        body = {"model": model, "input": {"type": "text", "text": "x"}}
        late = program.send("infer", deadline=kernel.now + 5_000_000_000, **body)
        dropped, last = program.start(model, "dropped"), program.start(model, "last")
        kernel.advance(6)
        assert isinstance(program.wait(late).error, TimedOut)
        program.cancel(dropped)
        assert isinstance(program.wait(dropped).error, Cancelled)
        for each in (number, last):
            kernel.null.release("submit")
            assert program.wait(each).error is None


def test_one_who_is_told_to_go_may_be_too_late(folder: Path) -> None:
    """Two tenants wait for one place of their user: only one of them gets it, the other waits on."""
    tenants = "".join(
        f"[policy.uid.{UID}.tenant.{name}]\nlimits = {{ concurrent_requests = 1 }}\n" for name in ("anna", "bert")
    )
    rules = policy("concurrent_requests = 2", 'over_quota = "wait"\n' + tenants)
    with inside(folder, rules, drivers="null0,models") as kernel:
        programs = [kernel.program(), kernel.program(tenant="anna"), kernel.program(tenant="bert")]
        models = [program.load("tiny") for program in programs]
        numbers = [programs[0].start(models[0], "x"), programs[0].start(models[0], "y")]
        waiting = [programs[at].start(models[at], "z") for at in (1, 2)]
        kernel.null.release("submit")
        programs[0].wait(numbers[0])
        assert len(running(kernel)) == 2
        kernel.null.release("submit")
        programs[0].wait(numbers[1])
        for _at in (1, 2):
            kernel.null.release("submit")
        for at in (1, 2):
            assert programs[at].wait(waiting[at - 1]).error is None


def test_users_wait_in_lines_of_their_own(folder: Path) -> None:
    one = policy("concurrent_requests = 1", 'over_quota = "wait"\n')
    other = one.replace(f"uid.{UID}", f"uid.{OTHER}") + 'handles = { device = "all", model = "all" }\n'
    other += f'[policy.uid.{OTHER}.mounts]\n"/models" = "rw"\n'
    with inside(folder, one + other, drivers="null0,models") as kernel:
        programs = [kernel.program(), kernel.program(Peer(OTHER, OTHER, os.getpid()))]
        models = [program.load("tiny") for program in programs]
        numbers = [programs[at].start(models[at], "x") for at in (0, 1, 0, 1)]
        for at, number in zip((0, 1, 0, 1), numbers, strict=True):
            assert len(running(kernel)) == 2 or number in numbers[2:]
            kernel.null.release("submit")
            assert programs[at].wait(number).error is None


def test_what_the_system_owns_counts_for_nobody(kernel: Inside) -> None:
    kernel.kernel.quotas.check_bytes("", 1 << 60, "a model")


def test_so_many_may_wait_for_their_quotas(folder: Path) -> None:
    rules = policy("concurrent_requests = 1", 'over_quota = "wait"\n', "[limits]\nqueued_requests = 1\n")
    with inside(folder, rules, drivers="null0,models") as kernel:
        program = kernel.program()
        model = program.load("tiny")
        numbers = [program.start(model, "x"), program.start(model, "y")]
        assert isinstance(program.wait(program.start(model, "z")).error, Busy)
        for number in numbers:
            kernel.null.release("submit")
            program.wait(number)


def test_bytes_of_devices_in_leases_and_models(folder: Path) -> None:
    limit = 3 * MODEL_BYTES
    more = f"[policy.uid.{UID}.tenant.anna]\nlimits = {{ device_bytes = {2 * MODEL_BYTES} }}\n"
    with inside(folder, policy(f"device_bytes = {limit}", more), drivers="null0,models") as kernel:
        anna, program = kernel.program(tenant="anna"), kernel.program()
        anna.load("tiny")
        device = anna.grants["null0"]
        anna.call("alloc_gpu", device=device, bytes=MODEL_BYTES)
        error = anna.error("alloc_gpu", device=device, bytes=1)
        assert isinstance(error, OverQuota) and (error.what, error.limit) == ("device_bytes", 2 * MODEL_BYTES)
        (reason,) = [each for each in error.reasons if each["code"] == "quota.over"]
        assert reason["numbers"] == {
            "limit": 2 * MODEL_BYTES, "used": 2 * MODEL_BYTES, "needed": 1, "who": f"{UID}/anna",
        }  # fmt: skip
        program.load("other")
        error = program.error("load_model", path="/models/third", device=program.grants["null0"])
        assert isinstance(error, OverQuota) and (error.what, error.limit) == ("device_bytes", limit)
        assert kernel.kernel.models.named("third") is None


def test_weights_come_from_policy(folder: Path) -> None:
    more = f"[policy.uid.{UID}.tenant.anna]\nlimits = {{ weight = 300 }}\n"
    more += "[policy.default]\nlimits = { weight = 20 }\n"
    with inside(folder, policy("weight = 50", more), drivers="null0,models") as kernel:
        anna, program = kernel.program(tenant="anna"), kernel.program()
        other = kernel.program(Peer(OTHER, OTHER, os.getpid()))
        standing = kernel.kernel.quotas.standing
        assert standing(kernel.session(anna)).weights == (50, 300)
        assert standing(kernel.session(program)).weights == (50, 100)
        assert standing(kernel.session(other)).weights == (20, 100)
        error = program.control_error(program.handle, "limit", weight=1000)
        assert "unknown option 'weight'" in str(error)


def test_idle_quotas_are_forgotten(folder: Path) -> None:
    with inside(folder, policy("tokens_per_minute = 60"), drivers="null0,models") as kernel:
        for number in range(300):
            program = kernel.program(tenant=f"t{number}", program="p")
            program.control(program.handle, "limit", tokens_per_minute=5)
            kernel.kernel.quotas.standing(kernel.session(program))
            kernel.kernel.sessions.close(kernel.session(program), "over")
        assert len(kernel.kernel.quotas._quotas) <= 257 and not kernel.kernel.quotas._standings


def reload(kernel: Inside, folder: Path, settings: str) -> None:
    file = folder / "config.toml"
    file.write_text(settings)
    kernel.kernel.reload(configuration.load({"config": str(file)}))
    kernel.settle()


def test_a_quota_that_policy_raises_lets_in_what_waits_for_it(folder: Path) -> None:
    wait = 'over_quota = "wait"'
    with inside(folder, policy("concurrent_requests = 1", wait), drivers="null0,models") as kernel:
        program = kernel.program()
        model = program.load("tiny")
        numbers = [program.start(model, text) for text in "abc"]
        reload(kernel, folder, policy("concurrent_requests = 2", wait))
        assert len(running(kernel)) == 2
        reload(kernel, folder, policy("", wait))
        assert len(kernel.kernel.quotas._lines) == 0 and len(kernel.kernel.scheduler.waiting()) == 1
        for number in numbers:
            kernel.null.release("submit")
            assert program.wait(number).error is None


def test_limits_that_a_session_has_of_its_own_stay_when_policy_changes(folder: Path) -> None:
    with inside(folder, policy("concurrent_requests = 3"), drivers="null0,models") as kernel:
        plain, lowered = kernel.program(), kernel.program(program="lowered")
        model, same = plain.load("tiny"), lowered.load("tiny")
        lowered.control(lowered.handle, "limit", concurrent_requests=2)
        reload(kernel, folder, policy("concurrent_requests = 1"))
        assert kernel.session(plain).limits.concurrent_requests == 1
        assert kernel.session(lowered).limits.concurrent_requests == 2
        number = plain.start(model, "x")
        assert refused(lowered, same).limit == 1 and refused(plain, model).limit == 1
        kernel.null.release("submit")
        assert plain.wait(number).error is None
