"""The kernel's own metrics. That they are documented is tested with the documentation."""

from __future__ import annotations

import sys
from collections import Counter
from types import FrameType
from typing import Any

import pytest
from msgspec.structs import replace
from scripted import Inside, Program, inference

from llmos.kernel import instruments
from llmos.kernel.instruments import Instruments, refresh
from llmos.kernel.metrics import Histogram
from llmos.kernel.residency import State
from llmos.syscalls.types import Choice, Inference, Timing, Usage

PARTS = {"instruments.py", "metrics.py", "speed.py"}


def read(kernel: Inside, program: Program, prefix: str = "") -> dict[str, Any]:
    """Metrics as a program reads them."""
    found: dict[str, Any] = program.call("read_metrics", system=program.system, prefix=prefix)
    return found


def answered(reason: str = "stop", new: int = 11, choices: int = 1) -> Inference:
    each = [Choice(index=i, text="", tokens=[], reason=reason) for i in range(choices)]
    return replace(inference(), choices=each, usage=Usage(prompt_tokens=3, new_tokens=new))


def test_gauges_show_what_is_there(kernel: Inside, program: Program) -> None:
    model = program.load("tiny")
    number = program.send("watch_events", system=program.system)
    refresh(kernel.kernel)
    instruments = kernel.kernel.instruments
    found = instruments.registry.snapshot("")
    assert found["llmos_requests_in_flight"].value == 1 and found["llmos_kernel_resident_bytes"].value > 1 << 20
    assert found['llmos_device_bytes{device="null0",what="free"}'].value == (1 << 20) - 1024
    program.control(model, "sleep")
    refresh(kernel.kernel)
    states = {s: instruments.models.labels(s.value).value for s in State}
    assert states == {**dict.fromkeys(State, 0), State.ASLEEP: 1}
    program.cancel(number)
    program.wait(number)


def test_bytes_that_were_given_back_are_not_shown_any_more(kernel: Inside, program: Program) -> None:
    model = program.load("tiny")
    refresh(kernel.kernel)
    program.call("unload_model", model=model)
    refresh(kernel.kernel)
    found = kernel.kernel.instruments.registry.snapshot("llmos_device_bytes")
    assert found['llmos_device_bytes{device="null0",what="weights"}'].value == 0


def test_an_answered_inference_is_counted_once_for_its_model() -> None:
    kept = Instruments()
    kept.answered("tiny", answered("length"), Timing(queued=2_000_000, first=500_000_000, total=1_500_000_000))
    found = kept.registry.snapshot()
    assert found['llmos_request_success_total{model_name="tiny",finished_reason="length"}'].value == 1
    assert found['llmos_prompt_tokens_total{model_name="tiny"}'].value == 3
    assert found['llmos_generation_tokens_total{model_name="tiny"}'].value == 11
    assert found['llmos_tokens_total{kind="generated",model="tiny"}'].value == 11
    seconds = {name.split("{")[0]: metric.value for name, metric in found.items() if metric.kind == "histogram"}
    assert seconds["llmos_time_to_first_token_seconds"] == seconds["llmos_first_token_seconds"] == 0.5
    assert seconds["llmos_inter_token_latency_seconds"] == 0.1
    assert seconds["llmos_e2e_request_latency_seconds"] == 1.5
    assert seconds["llmos_request_queue_time_seconds"] == 0.002


@pytest.mark.parametrize(
    ("inference", "timing", "first", "between"),
    [
        (answered(), Timing(total=5), 0, 0),
        (answered(new=1), Timing(first=3, total=5), 1, 0),
        (answered(new=8, choices=4), Timing(first=10**9, total=2 * 10**9), 1, 1),
    ],
    ids=["not streamed", "one token", "four choices of two"],
)
def test_times_that_a_request_does_not_have_are_not_observed(
    inference: Inference, timing: Timing, first: int, between: int
) -> None:
    kept = Instruments()
    kept.answered("tiny", inference, timing)

    def count(family: Any) -> int:
        return sum(sum(member.counts) for _labels, member in family.members() if isinstance(member, Histogram))

    assert (count(kept.to_first), count(kept.between)) == (first, between)
    if between:
        assert kept.between.labels("tiny").sum == 1.0  # one gap in each of the four at once


def test_a_task_without_choices_has_stopped() -> None:
    kept = Instruments()
    kept.answered("tiny", answered(choices=0), Timing(total=5))
    assert kept.success.labels("tiny", "stop").value == 1


def test_what_runs_and_waits_and_what_a_model_holds(kernel: Inside, program: Program) -> None:
    model = program.load("tiny")
    numbers = [program.start(model, str(i)) for i in range(3)]
    found = read(kernel, program)
    assert found['llmos_num_requests_running{model_name="tiny"}']["value"] == 2
    assert found['llmos_num_requests_waiting{model_name="tiny"}']["value"] == 1
    assert found["llmos_queue_oldest_seconds"]["value"] == 0
    kernel.advance(12.5)
    assert read(kernel, program)["llmos_queue_oldest_seconds"]["value"] == 12.5
    assert found['llmos_model_bytes{model_name="tiny",device="null0",what="weights"}']["value"] == 1024
    for number in numbers:
        kernel.null.release("submit")
        program.wait(number)
    program.control(model, "sleep")
    found = read(kernel, program)
    assert found["llmos_queue_oldest_seconds"]["value"] == 0
    assert found['llmos_num_requests_running{model_name="tiny"}']["value"] == 0
    assert found['llmos_model_bytes{model_name="tiny",device="null0",what="weights"}']["value"] == 0
    evicted = {name: metric["value"] for name, metric in found.items() if name.startswith("llmos_evictions_total")}
    assert list(evicted.values()) == [1]


def test_the_members_of_a_model_leave_with_it(kernel: Inside, program: Program) -> None:
    model, other = program.load("tiny"), program.load("other")
    for each in (model, other):
        number = program.start(each, "x")
        kernel.null.release("submit")
        program.wait(number)
    assert any('"tiny"' in name for name in read(kernel, program))
    program.call("unload_model", model=model)
    names = list(read(kernel, program))
    assert not [name for name in names if '"tiny"' in name] and [name for name in names if '"other"' in name]


def test_a_model_that_takes_over_a_name_keeps_its_members(kernel: Inside, program: Program) -> None:
    program.load("tiny")
    program.load("other", name="tiny", replace=True)
    loads = read(kernel, program)['llmos_model_load_time_seconds{model_name="tiny"}']
    assert loads["buckets"]["+Inf"] == 2


def test_nothing_is_counted_for_each_token(kernel: Inside, program: Program) -> None:
    """Calls of functions of the metrics during a stream: as many for forty tokens as for one."""
    model = program.load("tiny")

    def calls(tokens: int) -> Counter[str]:
        seen: Counter[str] = Counter()

        def look(frame: FrameType, event: str, _argument: object) -> None:
            file = frame.f_code.co_filename.rpartition("/")[2]
            if event == "call" and file in PARTS:
                seen[f"{file}:{frame.f_code.co_name}"] += 1

        number = program.start(model, "x", "infer_stream")
        before = sys.getprofile()
        sys.setprofile(look)
        try:
            for token in range(tokens):
                kernel.null.chunk({"index": 0, "text": "a", "tokens": [token]})
            kernel.null.release("submit", inference(new=tokens))
        finally:
            sys.setprofile(before)
        program.wait(number)
        return seen

    calls(2)
    few, many = calls(2), calls(40)
    assert few == many and few["instruments.py:answered"] == 1
    assert instruments.__file__.endswith("instruments.py")
