"""The path of an inference: queue, quota, a second run after a crash, buffers. Calls: `handlers/test_inference.py`."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from scripted import Inside, Program, inference, inside

from llmos.kernel.supervisor import DriverState
from llmos.syscalls.errors import (
    BadHandle, BadState, Busy, Cancelled, LlmosError, NotFound, OverQuota, PeerGone, TimedOut, TooLarge, Unavailable,
)  # fmt: skip
from llmos.syscalls.events import Spent


@pytest.fixture
def model(program: Program) -> int:
    return program.load("tiny")


def late(program: Program, kernel: Inside, model: int, seconds: float, call: str = "infer") -> int:
    body = {"model": model, "input": {"type": "text", "text": "x"}}
    return program.send(call, deadline=kernel.now + int(seconds * 1e9), **body)


def free_slots(kernel: Inside) -> bool:
    return not kernel.kernel.scheduler.running()


# ---- after a crash


def test_what_delivered_nothing_runs_once_more(kernel: Inside, program: Program, model: int) -> None:
    number = program.start(model, "x")
    kernel.null.dies()
    kernel.null.starts()
    kernel.null.release("submit", inference("again"))
    answer = program.wait(number)
    assert answer.value["choices"][0]["text"] == "again" and "request.repeated" in answer.reasons


def test_it_does_not_run_a_third_time(kernel: Inside, program: Program, model: int) -> None:
    number = program.start(model, "x")
    for _ in range(2):
        kernel.null.dies()
        kernel.null.starts()
    assert isinstance(program.wait(number).error, PeerGone) and free_slots(kernel)


def test_what_delivered_something_is_not_repeated(kernel: Inside, program: Program, model: int) -> None:
    number = program.start(model, "x", "infer_stream")
    kernel.null.chunk({"index": 0, "text": "ab", "tokens": [1, 2]})
    kernel.null.dies()
    error = program.wait(number).error
    assert isinstance(error, PeerGone) and error.tokens_done == 2 and free_slots(kernel)


def test_what_continues_a_conversation_is_not_repeated(kernel: Inside, program: Program, model: int) -> None:
    context = program.call("open_context", model=model)["handle"]
    number = program.send("infer", model=model, input={"type": "text", "text": "x"}, context=context)
    kernel.null.dies()
    assert isinstance(program.wait(number).error, PeerGone)
    assert program.state(context) == "lost"


def test_what_was_cancelled_is_not_repeated(kernel: Inside, program: Program, model: int) -> None:
    number = program.start(model, "x")
    program.cancel(number)
    kernel.null.dies()
    assert isinstance(program.wait(number).error, PeerGone)


def test_nothing_is_repeated_on_a_driver_that_stays_down(kernel: Inside, program: Program, model: int) -> None:
    number = program.start(model, "x")
    kernel.null.dies(DriverState.STOPPED)
    assert isinstance(program.wait(number).error, PeerGone)


def test_a_conversation_lost_in_the_queue_is_an_error(kernel: Inside, program: Program, model: int) -> None:
    context = program.call("open_context", model=model)["handle"]
    running = [program.start(model, "x", "infer_stream") for _ in range(2)]
    waiting = program.send("infer", model=model, input={"type": "text", "text": "x"}, context=context)
    kernel.null.chunk({"index": 0, "text": "a", "tokens": [1]}, of=0)
    kernel.null.chunk({"index": 0, "text": "a", "tokens": [1]}, of=1)
    kernel.null.dies()
    kernel.null.starts()
    assert all(isinstance(program.wait(number).error, PeerGone) for number in running)
    assert isinstance(program.wait(waiting).error, BadState) and free_slots(kernel)


# ---- deadlines and cancels


def test_a_deadline_frees_the_slot_when_the_device_has_let_go(kernel: Inside, program: Program, model: int) -> None:
    number = late(program, kernel, model, 5)
    kernel.advance(6)
    assert isinstance(program.wait(number).error, TimedOut)
    assert "cancel" in kernel.null.names() and not free_slots(kernel)
    other = program.start(model, "y")
    kernel.null.release("submit")
    kernel.null.release("submit")
    assert program.wait(other).error is None and free_slots(kernel)


def test_a_slot_is_freed_when_the_device_dies_after_the_deadline(kernel: Inside, program: Program, model: int) -> None:
    number = late(program, kernel, model, 5)
    kernel.advance(6)
    assert isinstance(program.wait(number).error, TimedOut)
    kernel.null.dies()
    assert free_slots(kernel)


def test_a_deadline_in_the_queue_ends_the_wait(kernel: Inside, program: Program, model: int) -> None:
    running = [program.start(model, "x") for _ in range(2)]
    waiting = late(program, kernel, model, 5)
    kernel.advance(6)
    assert isinstance(program.wait(waiting).error, TimedOut)
    for number in running:
        kernel.null.release("submit")
        program.wait(number)


def test_a_deadline_that_passes_as_a_slot_falls_free_expires_in_the_queue(
    kernel: Inside, program: Program, model: int
) -> None:
    running = [program.start(model, "x") for _ in range(2)]
    waiting = late(program, kernel, model, 5)
    kernel.now += 6_000_000_000
    kernel.null.release("submit")
    assert isinstance(program.wait(waiting).error, TimedOut)
    kernel.null.release("submit")
    for number in running:
        program.wait(number)


def test_a_request_started_and_cancelled_in_one_turn_frees_its_slot(
    kernel: Inside, program: Program, model: int
) -> None:
    running = [program.start(model, "x") for _ in range(2)]
    waiting = program.start(model, "y")
    request = kernel.session(program).requests[waiting]
    kernel.kernel.inference.left(kernel.session(program).requests[running[0]].id)
    kernel.kernel.interrupt(request, Cancelled("now"))
    kernel.settle()
    assert isinstance(program.wait(waiting).error, Cancelled)
    assert [ticket.id for ticket in kernel.kernel.scheduler.running()] == [
        kernel.session(program).requests[running[1]].id
    ]
    for number in running:
        kernel.null.release("submit")
        program.wait(number)


def test_a_start_for_a_request_that_is_gone_frees_the_slot(kernel: Inside, program: Program, model: int) -> None:
    running = [program.start(model, "x") for _ in range(2)]
    waiting = program.start(model, "y")
    turn = kernel.kernel.inference.turns.pop(kernel.session(program).requests[waiting].id)
    kernel.null.release("submit")
    assert len(kernel.kernel.scheduler.running()) == 1
    kernel.kernel.inference.turns[kernel.session(program).requests[waiting].id] = turn
    program.cancel(waiting)
    program.wait(waiting)
    kernel.null.release("submit")
    for number in running:
        program.wait(number)


# ---- whose turn it is


def started(kernel: Inside) -> list[str]:
    """Texts of the requests that reached the host, in order."""
    return [body["work"]["input"]["text"] for name, body in kernel.null.calls if name == "submit"]


def test_interactive_work_starts_beyond_slots_full_of_batch(kernel: Inside, program: Program) -> None:
    """Where the device can park work; the model has two slots."""
    assert kernel.null.driver.facts is not None
    kernel.null.driver.facts = msgspec.structs.replace(kernel.null.driver.facts, features={"parks": 1})
    model = program.load("tiny")
    numbers = [program.start(model, f"batch{at}", call_work_class="batch") for at in range(3)]
    numbers += [program.start(model, f"now{at}") for at in range(3)]
    assert started(kernel) == ["batch0", "batch1", "now0", "now1"]
    running = {ticket.id: kernel.kernel.decisions.of(ticket.id) for ticket in kernel.kernel.scheduler.running()}
    beyond = [reasons[-1] for reasons in running.values() if "beyond 2 slots" in reasons[-1].rule]
    assert len(beyond) == 2 and all(reason.code == "request.start" for reason in beyond)
    for number in (*numbers[:2], *numbers[3:], numbers[2]):
        kernel.null.release("submit")
        assert program.wait(number).error is None
    assert sorted(started(kernel)[4:]) == ["batch2", "now2"]


def test_device_time_that_a_driver_reports_moves_the_turn(kernel: Inside) -> None:
    anna, bert = kernel.program(tenant="anna"), kernel.program(tenant="bert")
    mine, his = anna.load("tiny"), bert.load("tiny")
    numbers = [(anna, anna.start(mine, "a0")), (bert, bert.start(his, "b0"))]
    for at in (1, 2):
        numbers += [(anna, anna.start(mine, f"a{at}")), (bert, bert.start(his, f"b{at}"))]
    (request,) = [ticket.id for ticket in kernel.kernel.scheduler.running() if ticket.owner.endswith("anna")]
    told = Spent(work_class="interactive", tenant="anna", device_ns=5_000_000_000, tokens=9, request=request)
    kernel.null.event(told)
    kernel.null.release("submit")
    assert started(kernel) == ["a0", "b0", "b1"], "it would have been the turn of a1"
    for _ in range(5):
        kernel.null.release("submit")
    for program, number in numbers:
        assert program.wait(number).error is None


def test_queues_have_other_bounds_after_a_reload(kernel: Inside, program: Program, model: int) -> None:
    limits = msgspec.structs.replace(kernel.config.limits, queued_requests=1)
    kernel.kernel.reload(msgspec.structs.replace(kernel.config, limits=limits))
    numbers = [program.start(model, "x") for _ in range(3)]
    assert isinstance(program.wait(program.start(model, "y")).error, Busy)
    for number in numbers:
        kernel.null.release("submit")
        program.wait(number)


# ---- limits


def test_tokens_per_minute_are_counted_after_each_request(kernel: Inside, program: Program, model: int) -> None:
    program.control(program.handle, "limit", tokens_per_minute=60)
    number = program.start(model, "x")
    kernel.null.release("submit", inference(prompt=50, new=20))
    program.wait(number)
    error = program.wait(program.start(model, "y")).error
    assert isinstance(error, OverQuota) and error.what == "tokens_per_minute"
    kernel.advance(error.retry_after_ms / 1000)
    number = program.start(model, "y")
    kernel.null.release("submit")
    assert program.wait(number).error is None


def test_sessions_of_one_owner_share_its_tokens(kernel: Inside, program: Program, model: int) -> None:
    other = kernel.program()
    for one in (program, other):
        one.control(one.handle, "limit", tokens_per_minute=10)
    number = program.start(model, "x")
    kernel.null.release("submit", inference(prompt=50))
    program.wait(number)
    assert isinstance(other.wait(other.start(other.load("tiny"), "y")).error, OverQuota)


def test_a_lower_quota_counts_at_once(kernel: Inside, program: Program, model: int) -> None:
    program.control(program.handle, "limit", tokens_per_minute=1000)
    program.control(program.handle, "limit", handles=500)
    program.control(program.handle, "limit", tokens_per_minute=10)
    number = program.start(model, "x")
    kernel.null.release("submit", inference(prompt=50))
    program.wait(number)
    error = program.wait(program.start(model, "y")).error
    assert isinstance(error, OverQuota) and error.limit == 10


def test_a_full_queue_is_busy(folder: Path) -> None:
    with inside(folder, "[limits]\nqueued_requests = 1\n", drivers="null0,models") as kernel:
        program = kernel.program()
        model = program.load("tiny")
        numbers = [program.start(model, "x") for _ in range(3)]
        assert isinstance(program.wait(program.start(model, "y")).error, Busy)
        for number in numbers:
            kernel.null.release("submit")
            program.wait(number)


def test_what_the_queue_refuses_is_no_use_of_the_model_and_is_known_by_its_id(folder: Path) -> None:
    with inside(folder, "[limits]\nqueued_requests = 1\n", drivers="null0,models") as kernel:
        program = kernel.program()
        model = program.load("tiny")
        numbers = [program.start(model, "x") for _ in range(3)]
        (loaded,) = kernel.kernel.models.by_id.values()
        used = kernel.kernel.residency._model(loaded.id).used
        kernel.now += 1_000_000_000
        errors = [program.wait(program.start(model, "y")).error for _ in range(2)]
        assert kernel.kernel.residency._model(loaded.id).used == used and not kernel.kernel.inference.turns.keys() - {
            ticket.id for ticket in kernel.kernel.scheduler.waiting()
        }
        for error in errors:
            assert isinstance(error, Busy)
            why, how = kernel.kernel.decisions.of(error.request)
            assert why.numbers == error.reasons[0]["numbers"] and how.numbers["retry_after_ms"] == error.retry_after_ms
        assert kernel.kernel.decisions.of(loaded.id)[-1].numbers["refused"] == len(errors)
        for number in numbers:
            kernel.null.release("submit")
            program.wait(number)


def test_a_prompt_too_large_for_the_wire_frees_its_slot(kernel: Inside, program: Program, model: int) -> None:
    link = kernel.null.driver.link
    assert link is not None

    def refuse(*_arguments: object) -> None:
        raise TooLarge("too large for the host", limit=1, got=2)

    link.stream = refuse  # type: ignore[method-assign, assignment]
    assert isinstance(program.wait(program.start(model, "x")).error, TooLarge)
    assert free_slots(kernel)


# ---- buffers in inputs


def tensors(buffer: int) -> dict:
    data = {"type": "buffer", "buffer": buffer, "offset": 0, "length": 4}
    inline = {"dtype": "float32", "shape": [1], "data": b"\0" * 4}
    return {"type": "tensors", "named": {"x": {"dtype": "float32", "shape": [1], "data": data}, "y": inline}}


def test_buffers_of_an_input_are_named_to_the_device(kernel: Inside, program: Program, model: int) -> None:
    buffer = program.call("alloc_buffer", system=program.system, bytes=4096)
    number = program.send("infer", model=model, input=tensors(buffer["handle"]))
    work = kernel.null.last("submit")["work"]
    assert work["buffers"] == {str(buffer["handle"]): {"path": buffer["path"], "bytes": 4096}}
    kernel.null.release("submit")
    program.wait(number)


def test_parts_may_hold_buffers_too(kernel: Inside, program: Program, model: int) -> None:
    buffer = program.call("alloc_buffer", system=program.system, bytes=4096)["handle"]
    image = {"type": "image", "data": {"type": "buffer", "buffer": buffer, "offset": 0, "length": 4}}
    parts = {"type": "parts", "parts": [{"type": "text", "text": "x"}, image]}
    number = program.send("infer", model=model, input=parts)
    assert list(kernel.null.last("submit")["work"]["buffers"]) == [str(buffer)]
    kernel.null.release("submit")
    program.wait(number)


def test_a_buffer_that_is_not_the_programs_is_refused(program: Program, model: int) -> None:
    error: LlmosError = program.error("infer", model=model, input=tensors(999))
    assert isinstance(error, BadHandle)


def test_a_model_unloaded_while_a_request_starts_is_not_found(kernel: Inside, program: Program, model: int) -> None:
    models = kernel.kernel.models
    found = next(iter(models.by_id.values()))
    models.by_id.pop(found.id)
    assert isinstance(program.wait(program.start(model, "x")).error, NotFound)
    models.by_id[found.id] = found
    assert free_slots(kernel)


def test_a_model_whose_driver_cannot_start_ends_its_requests(kernel: Inside, program: Program, model: int) -> None:
    kernel.null.dies(DriverState.STOPPED)
    assert isinstance(program.wait(program.start(model, "x")).error, (BadState, Unavailable))
